# Uses of an agreement that a reporter served and now reports: whether the agreement can be kept by
# a report, and what each record is held to (obligations). Asked once for an agreement and a
# purpose, not for every record.
#
# A report tells what was counted, not what was shown. So a term that speaks of a result refuses
# every report, as does data that may only be computed on.
#
# input: now_ms, now, agreement {id, assigner, assignee, target, classification, state, terms},
# provider, consumer {did, state, roles}, dataset {id, classification, privacy_unit, columns},
# use {purpose, action}, and for rules of a space request {output, columns, aggregates, functions}:
# rows, of nothing known. docs/policy.md describes each.
package dataspace.metering

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

decision := {"allow": true, "reasons": [], "obligations": obligations} if {
	well_formed
	agreement_active
	assigner_is_us
	assignee_is_consumer
	target_is_dataset
	member_active
	action_is_use
	rows_allowed
	space.classification_allowed
	count(refusals) == 0
	every c in constraints {
		terms.understood(c)
		holds(c)
	}
	time_left
}

decision := {"allow": false, "reasons": common.reasons(refusals), "obligations": {}} if {
	well_formed
	count(refusals) > 0
}

well_formed if {
	space.configured
	is_number(input.now_ms)
	is_string(input.now)
	is_agreement(input.agreement)
	is_string(input.provider)
	common.is_member(input.consumer)
	common.is_dataset(input.dataset)
	is_string(input.use.purpose)
	is_string(input.use.action)
	input.request.output == "rows"
}

is_agreement(agreement) if {
	is_string(agreement.id)
	is_string(agreement.assigner)
	is_string(agreement.assignee)
	is_string(agreement.target)
	is_string(agreement.classification)
	is_string(agreement.state)
	common.is_terms(agreement.terms)
}

# The contract and its parties.

agreement_active if input.agreement.state == "active"

assigner_is_us if input.agreement.assigner == input.provider

assignee_is_consumer if input.agreement.assignee == input.consumer.did

target_is_dataset if input.agreement.target == input.dataset.id

member_active if input.consumer.state == "active"

action_is_use if input.use.action == "use"

refusals contains ["agreement", common.shown(input.agreement.state), "active"] if not agreement_active

refusals contains ["assigner", common.shown(input.agreement.assigner), "this provider"] if not assigner_is_us

refusals contains ["assignee", common.shown(input.consumer.did), "the agreement's consumer"] if not assignee_is_consumer

refusals contains ["target", common.shown(input.dataset.id), "the agreement's dataset"] if not target_is_dataset

refusals contains ["member", common.shown(input.consumer.state), "active"] if not member_active

refusals contains ["action", common.shown(input.use.action), "use"] if not action_is_use

# The terms: what is not understood is not enforced, so it refuses.

refusals contains refusal if {
	some refusal in union({
		terms.problems(input.agreement.terms),
		terms.mismatches(input.agreement.terms, input.dataset),
		space.breaches(input.agreement.terms, input.dataset),
	})
}

refusals contains refusal if some refusal in space.refusals

constraints := [c |
	some permission in input.agreement.terms.permission
	some c in permission.constraint
]

refusals contains [c.left, observed(c), terms.allowed(c)] if {
	some c in constraints
	terms.understood(c)
	not holds(c)
}

# Each record is held to these.
holds(c) if c.left in {"count", "dateTime"}

holds(c) if {
	c.left == "purpose"
	input.use.purpose in terms.purposes(c)
}

observed(c) := common.shown(input.use.purpose) if c.left == "purpose"

observed(c) := "a report, which does not show it" if c.left in {
	"tds:hiddenColumns",
	"tds:minimumGroup",
	"tds:output",
	"tds:rowCap",
}

# Classification: the stricter of what was agreed and what the dataset is now.

rows_allowed if {
	input.agreement.classification == "general"
	input.dataset.classification == "general"
}

refusals contains ["tds:output", "a report, which does not show it", "aggregates only"] if not rows_allowed

# When a use may have been served: within all dateTime terms, and outside what is prohibited. Of the
# two sides that a prohibited period leaves, the one that is not over: a report that comes after
# the period, of a use before it, is refused.

earliest := 0

latest := 253402300799999 # the last millisecond of the year 9999

first_ms := max(firsts)

last_ms := min(lasts)

firsts contains earliest

firsts contains moment if {
	some c in times
	moment := terms.first_moment(c)
}

firsts contains moment if {
	some period in prohibited
	period.last < input.now_ms
	moment := period.last + 1
}

lasts contains latest

lasts contains moment if {
	some c in times
	moment := terms.last_moment(c)
}

lasts contains moment if {
	some period in prohibited
	period.last >= input.now_ms
	moment := period.first - 1
}

times := terms.of(input.agreement.terms, "dateTime")

# A prohibition of use applies where all its constraints do.
prohibited contains {"first": begins(p), "last": ends(p)} if {
	some p in input.agreement.terms.prohibition
	p.action == "use"
	terms.prohibition_understood(p)
	applies(p)
	begins(p) <= ends(p)
}

applies(p) if {
	every c in p.constraint {
		concerns(c)
	}
}

concerns(c) if c.left == "dateTime"

concerns(c) if {
	c.left == "purpose"
	input.use.purpose in terms.purposes(c)
}

begins(p) := max({earliest} | {terms.first_moment(c) |
	some c in p.constraint
	c.left == "dateTime"
})

ends(p) := min({latest} | {terms.last_moment(c) |
	some c in p.constraint
	c.left == "dateTime"
})

time_left if first_ms <= last_ms

refusals contains ["prohibition", "use, at any time that is left", "a use that is not prohibited"] if {
	count(prohibited) > 0
	not time_left
}

refusals contains ["dateTime", "no time that all terms allow", "a time within all terms"] if {
	count(prohibited) == 0
	not time_left
}

# What each record is held to. A limit of 0 is none: a count term allows 1 at least.

obligations := {"first_ms": first_ms, "last_ms": last_ms, "limit": limit}

limits := [c.right | some c in terms.of(input.agreement.terms, "count")]

limit := min(limits) if count(limits) > 0

limit := 0 if count(limits) == 0
