# Rules that bind every member of the space, whatever a contract says. Their numbers and lists
# are data.space (data.json of the bundle).
#
# A space's operator adds rules in a file of its own with this package:
#     refusals contains [term, observed, allowed] if { ... }
# They are asked when a dataset is listed, when terms are negotiated and at each use; input is
# then the input of that decision.
package dataspace.space

import data.dataspace.common
import data.dataspace.terms

rules := data.space

# Without its data the space has no rules, and nothing is allowed.
configured if {
	common.strings(rules.aggregates)
	common.strings(rules.classifications)
	common.strings(rules.roles)
	is_number(rules.maximum_agreement_days)
	is_number(rules.minimum_group)
}

refusals contains ["tds:classification", common.shown(input.dataset.classification), common.listed(rules.classifications)] if {
	not classification_allowed
}

classification_allowed if {
	input.dataset.classification in rules.classifications
	input.dataset.classification in {"general", "important"} # core is never shared, in any space
}

# What in these terms, for this dataset, breaks the space's rules.
breaches(t, dataset) := union({
	group_breaches(t),
	length_breaches(t),
	compute_only_breaches(t, dataset),
})

group_breaches(t) := {["tds:minimumGroup", terms.allowed(c), sprintf("groups of at least %d", [rules.minimum_group])] |
	some c in terms.of(t, "tds:minimumGroup")
	c.right < rules.minimum_group
}

length_breaches(t) := {["dateTime", "no end within the longest agreement", sprintf("an end within %d days", [rules.maximum_agreement_days])] |
	rules.maximum_agreement_days > 0
	not ends_in_time(t)
}

ends_in_time(t) if {
	some c in terms.of(t, "dateTime")
	terms.last_moment(c) <= input.now_ms + (rules.maximum_agreement_days * 86400000)
}

# Important data is compute-only: aggregates of groups that are counted by the privacy unit.
compute_only_breaches(t, dataset) := ({["tds:output", sprintf("%s data without this term", [dataset.classification]), "aggregates only"] |
	dataset.classification != "general"
	count(terms.of(t, "tds:output")) == 0
} | {["tds:minimumGroup", sprintf("%s data without this term", [dataset.classification]), sprintf("groups of at least %d", [rules.minimum_group])] |
	dataset.classification != "general"
	count(terms.of(t, "tds:minimumGroup")) == 0
}) | {["tds:privacyUnit", sprintf("%s data without a privacy unit", [dataset.classification]), "a column that is the privacy unit"] |
	dataset.classification != "general"
	dataset.privacy_unit == ""
}
