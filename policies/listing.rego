# May this dataset be listed with these offers?
#
# input: now_ms, publisher {did, state, roles}, dataset {id, publisher, classification,
# privacy_unit, columns, accept_free_sql}, offers [{id, terms}].
package dataspace.listing

import data.dataspace.common
import data.dataspace.space
import data.dataspace.terms

default decision := {
	"allow": false,
	"reasons": [{
		"term": "policy",
		"observed": "an input that is not as documented",
		"allowed": "the documented input",
	}],
	"obligations": {},
}

decision := {"allow": true, "reasons": [], "obligations": {}} if {
	well_formed
	publisher_active
	publisher_provides
	publisher_is_owner
	free_sql_accepted
	space.classification_allowed
	count(input.offers) > 0
	count(refusals) == 0
}

decision := {"allow": false, "reasons": common.reasons(refusals), "obligations": {}} if {
	well_formed
	count(refusals) > 0
}

well_formed if {
	space.configured
	is_number(input.now_ms)
	common.is_member(input.publisher)
	common.is_dataset(input.dataset)
	is_string(input.dataset.publisher)
	is_boolean(input.dataset.accept_free_sql)
	is_array(input.offers)
	every offer in input.offers {
		common.is_terms(offer.terms)
	}
}

publisher_active if input.publisher.state == "active"

publisher_provides if "provider" in input.publisher.roles

publisher_is_owner if input.publisher.did == input.dataset.publisher

# Group minimums alone leak to who asks often: the owner of important data has to say that they
# are enough.
free_sql_accepted if input.dataset.classification == "general"

free_sql_accepted if input.dataset.accept_free_sql == true

refusals contains ["member", common.shown(input.publisher.state), "active"] if not publisher_active

refusals contains ["role", common.shown(common.listed(input.publisher.roles)), "provider"] if not publisher_provides

refusals contains ["publisher", common.shown(input.publisher.did), common.shown(input.dataset.publisher)] if {
	not publisher_is_owner
}

refusals contains ["tds:freeSql", "no word from the owner", "the owner's word that group minimums are enough"] if {
	not free_sql_accepted
}

refusals contains ["offer", "no offer", "at least one offer"] if count(input.offers) == 0

refusals contains refusal if {
	some offer in input.offers
	some refusal in union({
		terms.problems(offer.terms),
		terms.mismatches(offer.terms, input.dataset),
		space.breaches(offer.terms, input.dataset),
	})
}

refusals contains refusal if some refusal in space.refusals
