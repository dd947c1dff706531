# One use of an agreement: allowed or not, why not, and what the gate must do to the result.
#
# Every check is a helper that must hold; each refusal negates one of them, and an allowance asks
# for all of them again, so that a check that cannot be evaluated refuses.
#
# input: now_ms, now, agreement {id, assigner, assignee, target, classification, state, terms},
# provider, consumer {did, state, roles}, dataset {id, classification, privacy_unit, columns},
# use {purpose, action}, request {output, columns [{name, role, places, aggregates}], aggregates,
# functions, whole}, counters {uses, reserved}. docs/policy.md describes each. A request that is
# whole is no query: the dataset's file leaves, with all rows of all columns.
package dataspace.usage

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
	assignee_is_caller
	target_is_dataset
	member_active
	action_is_use
	compute_only_kept
	hidden_untouched
	purpose_known
	space.classification_allowed
	count(refusals) == 0
	every c in constraints {
		terms.understood(c)
		holds(c)
	}
	every column in input.request.columns {
		column_known(column)
		unit_only_counted(column)
		measure_in_place(column)
	}
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
	is_request(input.request)
	whole_described(input.request)
	is_number(input.counters.uses)
	is_number(input.counters.reserved)
	input.counters.uses >= 0
	input.counters.reserved >= 0
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

is_request(request) if {
	request.output in {"aggregate", "rows"}
	common.strings(request.aggregates)
	common.strings(request.functions)
	is_array(request.columns)
	every column in request.columns {
		is_string(column.name)
		common.strings(column.aggregates)
		common.strings(column.places)
		count(column.places) > 0
		every place in column.places {
			place in {"aggregate", "filter", "group", "join", "order", "select"}
		}
	}
}

# What is whole is rows, and every column is shown: else a column could be left out of what is judged.
whole_described(request) if request.whole == false

whole_described(request) if {
	request.whole == true
	request.output == "rows"
	{column.name | some column in request.columns} == {column.name | some column in input.dataset.columns}
	every column in request.columns {
		"select" in column.places
	}
}

# The contract and its parties.

agreement_active if input.agreement.state == "active"

assigner_is_us if input.agreement.assigner == input.provider

assignee_is_caller if input.agreement.assignee == input.consumer.did

target_is_dataset if input.agreement.target == input.dataset.id

member_active if input.consumer.state == "active"

action_is_use if input.use.action == "use"

refusals contains ["agreement", common.shown(input.agreement.state), "active"] if not agreement_active

refusals contains ["assigner", common.shown(input.agreement.assigner), "this provider"] if not assigner_is_us

refusals contains ["assignee", common.shown(input.consumer.did), "the agreement's consumer"] if not assignee_is_caller

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

# What the gate enforces on the result, or is judged with the dataset's roles below.
holds(c) if c.left == "tds:hiddenColumns"

holds(c) if {
	c.left == "tds:rowCap"
	input.request.whole == false
}

holds(c) if {
	c.left == "purpose"
	input.use.purpose in terms.purposes(c)
}

holds(c) if {
	c.left == "dateTime"
	input.now_ms <= terms.last_moment(c)
}

holds(c) if {
	c.left == "dateTime"
	input.now_ms >= terms.first_moment(c)
}

holds(c) if {
	c.left == "count"
	used < c.right
}

holds(c) if {
	c.left == "tds:output"
	input.request.output == "aggregate"
}

holds(c) if {
	c.left == "tds:minimumGroup"
	input.request.output == "aggregate"
}

observed(c) := common.shown(input.use.purpose) if c.left == "purpose"

observed(c) := input.now if c.left == "dateTime"

observed(c) := sprintf("%d of %d uses", [used, c.right]) if c.left == "count"

observed(c) := shape if c.left in {"tds:minimumGroup", "tds:output", "tds:rowCap"}

shape := "rows" if input.request.whole == false

shape := "the whole dataset" if input.request.whole == true

# Running uses count: they were reserved before they ran.
used := input.counters.uses + input.counters.reserved

touched := {column.name | some column in input.request.columns}

# A prohibition of use applies where all its constraints do.

refusals contains ["prohibition", prohibited_use(p), "a use that is not prohibited"] if {
	some p in input.agreement.terms.prohibition
	p.action == "use"
	terms.prohibition_understood(p)
	applies(p)
}

applies(p) if {
	every c in p.constraint {
		holds(c)
	}
}

# A transfer states no purpose of its own (gate/pulls.py finds the one that the terms leave). Where
# none is known, a prohibition by purpose could be broken unseen.
purpose_known if input.request.whole == false

purpose_known if input.use.purpose != ""

purpose_known if count(barred_purposes) == 0

barred_purposes := {purpose |
	some p in input.agreement.terms.prohibition
	p.action == "use"
	some c in p.constraint
	c.left == "purpose"
	terms.understood(c)
	some purpose in terms.purposes(c)
}

refusals contains ["prohibition", "a transfer, which states no purpose", sprintf("any purpose but: %s", [common.listed(barred_purposes)])] if {
	not purpose_known
}

prohibited_use(p) := "any use" if count(p.constraint) == 0

prohibited_use(p) := sprintf("use, %s", [concat("; ", sort({sprintf("%s %s", [c.left, terms.allowed(c)]) |
	some c in p.constraint
}))]) if {
	count(p.constraint) > 0
}

# Classification: the stricter of what was agreed and what the dataset is now.

compute_only_kept if input.request.output == "aggregate"

compute_only_kept if {
	input.agreement.classification == "general"
	input.dataset.classification == "general"
}

refusals contains ["tds:output", shape, "aggregates only"] if not compute_only_kept

# Columns, by the role that the dataset gives them.

roles := {column.name: column.role | some column in input.dataset.columns}

column_known(column) if is_string(roles[column.name])

hidden_untouched if count(touched & hidden) == 0

unit_only_counted(column) if roles[column.name] != "unit"

unit_only_counted(column) if {
	every place in column.places {
		place == "aggregate"
	}
	count(around(column)) > 0
	every aggregate in around(column) {
		aggregate in {"count", "count_distinct"}
	}
}

# The aggregates that a column is inside of; where the description does not say, all of them.
around(column) := column.aggregates if count(column.aggregates) > 0

around(column) := input.request.aggregates if count(column.aggregates) == 0

measure_in_place(column) if roles[column.name] != "measure"

measure_in_place(column) if {
	every place in column.places {
		place in {"aggregate", "order", "select"}
	}
}

refusals contains ["tds:columnRole", sprintf("%s is not a column", [common.shown(column.name)]), "columns of the dataset"] if {
	some column in input.request.columns
	not column_known(column)
}

refusals contains ["tds:hiddenColumns", common.listed(touched & hidden), sprintf("columns other than: %s", [common.listed(hidden)])] if {
	not hidden_untouched
}

refusals contains ["tds:privacyUnit", placed(column), "only counted: count, count_distinct"] if {
	some column in input.request.columns
	column_known(column)
	not unit_only_counted(column)
}

refusals contains ["tds:columnRole", placed(column), "a measure only inside an aggregate, or in rows"] if {
	some column in input.request.columns
	column_known(column)
	not measure_in_place(column)
}

placed(column) := sprintf("%s in %s", [column.name, common.shown(concat(", ", sort({place | some place in column.places})))])

# Where groups have a minimum, an aggregate may not hand out one row's value.

refusals contains ["tds:aggregates", aggregate, common.listed(space.rules.aggregates)] if {
	minimum_group > 0
	some aggregate in input.request.aggregates
	not aggregate_allowed(aggregate)
}

aggregate_allowed(aggregate) if aggregate in space.rules.aggregates

# What the gate must do.

obligations := {
	"hidden_columns": sort(hidden),
	"minimum_group": minimum_group,
	"privacy_unit": privacy_unit,
	"row_cap": row_cap,
}

hidden := {name | some name, role in roles; role == "hidden"} | {name |
	some c in terms.of(input.agreement.terms, "tds:hiddenColumns")
	some name in c.right
}

group_sizes := [c.right | some c in terms.of(input.agreement.terms, "tds:minimumGroup")]

minimum_group := max(group_sizes) if count(group_sizes) > 0

minimum_group := 0 if count(group_sizes) == 0

privacy_unit := input.dataset.privacy_unit if minimum_group > 0

privacy_unit := "" if minimum_group == 0

row_caps := [c.right | some c in terms.of(input.agreement.terms, "tds:rowCap")]

row_cap := min(row_caps) if count(row_caps) > 0

row_cap := 0 if count(row_caps) == 0
