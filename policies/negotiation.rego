# What to answer to requested terms, given the published offer.
#
# outcome: approve (allow is true) for the offer's terms or stricter ones; ask a person for other
# terms, or always where the owner wants it; refuse what no person may approve.
#
# input: now_ms, provider, consumer {did, state, roles}, dataset {id, classification,
# privacy_unit, columns}, offer {terms}, requested {terms}, manual_approval.
package dataspace.negotiation

import data.dataspace.common
import data.dataspace.space
import data.dataspace.terms

default decision := {
	"allow": false,
	"outcome": "refuse",
	"reasons": [{
		"term": "policy",
		"observed": "an input that is not as documented",
		"allowed": "the documented input",
	}],
	"obligations": {},
}

decision := {"allow": true, "outcome": "approve", "reasons": [], "obligations": {}} if {
	acceptable
	covered
	input.manual_approval == false
	count(questions) == 0
}

decision := {"allow": false, "outcome": "ask", "reasons": common.reasons(questions), "obligations": {}} if {
	acceptable
	count(questions) > 0
}

decision := {"allow": false, "outcome": "refuse", "reasons": common.reasons(refusals), "obligations": {}} if {
	well_formed
	count(refusals) > 0
}

well_formed if {
	space.configured
	is_number(input.now_ms)
	is_string(input.provider)
	common.is_member(input.consumer)
	common.is_dataset(input.dataset)
	common.is_terms(input.offer.terms)
	common.is_terms(input.requested.terms)
	is_boolean(input.manual_approval)
}

acceptable if {
	well_formed
	consumer_active
	consumer_consumes
	consumer_is_another
	space.classification_allowed
	count(refusals) == 0
}

consumer_active if input.consumer.state == "active"

consumer_consumes if "consumer" in input.consumer.roles

consumer_is_another if input.consumer.did != input.provider

refusals contains ["member", common.shown(input.consumer.state), "active"] if not consumer_active

refusals contains ["role", common.shown(common.listed(input.consumer.roles)), "consumer"] if not consumer_consumes

refusals contains ["assignee", common.shown(input.consumer.did), "another participant than the provider"] if {
	not consumer_is_another
}

refusals contains refusal if {
	some refusal in union({
		terms.problems(input.requested.terms),
		terms.mismatches(input.requested.terms, input.dataset),
		space.breaches(input.requested.terms, input.dataset),
	})
}

refusals contains ["dateTime", terms.allowed(c), sprintf("an end after %s", [common.shown(input.now)])] if {
	some c in terms.of(input.requested.terms, "dateTime")
	terms.last_moment(c) < input.now_ms
}

refusals contains refusal if some refusal in space.refusals

# Everything that the offer demands is demanded by the request as well.
covered if {
	every permission in input.offer.terms.permission {
		permission.action == "use"
		every c in permission.constraint {
			kept(c)
		}
	}
	every p in input.offer.terms.prohibition {
		prohibition_kept(p)
	}
	every o in input.offer.terms.obligation {
		obligation_kept(o)
	}
}

kept(c) if {
	terms.understood(c)
	some permission in input.requested.terms.permission
	some r in permission.constraint
	r.left == c.left
	terms.understood(r)
	terms.implies(r, c)
}

prohibition_kept(p) if {
	some q in input.requested.terms.prohibition
	terms.same_rule(p, q)
}

obligation_kept(o) if {
	some q in input.requested.terms.obligation
	terms.same_rule(o, q)
}

questions contains ["approval", "automatic", "a person's word"] if input.manual_approval == true

questions contains [c.left, requested(c.left), offered(c)] if {
	some permission in input.offer.terms.permission
	some c in permission.constraint
	not kept(c)
}

questions contains ["prohibition", sprintf("no prohibition of %s", [p.action]), sprintf("a prohibition of %s", [p.action])] if {
	some p in input.offer.terms.prohibition
	not prohibition_kept(p)
}

questions contains ["obligation", sprintf("no obligation to %s", [o.action]), sprintf("an obligation to %s", [o.action])] if {
	some o in input.offer.terms.obligation
	not obligation_kept(o)
}

# The offer itself may be older than this node's list of terms.
questions contains ["offer", refusal[1], refusal[2]] if {
	some refusal in terms.problems(input.offer.terms)
}

offered(c) := terms.allowed(c) if terms.understood(c)

offered(c) := terms.written(c) if not terms.understood(c)

requested(left) := concat("; ", sort({terms.allowed(c) | some c in terms.of(input.requested.terms, left)})) if {
	count(terms.of(input.requested.terms, left)) > 0
}

requested(left) := "no such term" if count(terms.of(input.requested.terms, left)) == 0
