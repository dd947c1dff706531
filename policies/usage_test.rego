package dataspace.usage_test

import data.dataspace.usage

constraints := [
	{"left": "purpose", "operator": "isAnyOf", "right": ["tourism-planning"], "unit": "", "text": "tourism-planning"},
	{"left": "dateTime", "operator": "lt", "right": 2000, "unit": "", "text": "the end"},
	{"left": "count", "operator": "lteq", "right": 20, "unit": "", "text": "20"},
	{"left": "tds:output", "operator": "eq", "right": "aggregate", "unit": "", "text": "aggregate"},
	{"left": "tds:minimumGroup", "operator": "gteq", "right": 10, "unit": "tailnum", "text": "10"},
	{"left": "tds:hiddenColumns", "operator": "isNoneOf", "right": ["seats"], "unit": "", "text": "seats"},
	{"left": "tds:rowCap", "operator": "lteq", "right": 500, "unit": "", "text": "500"},
]

terms := {
	"permission": [{"action": "use", "constraint": constraints}],
	"prohibition": [{"action": "tds:reidentify", "constraint": []}],
	"obligation": [{"action": "attribute", "constraint": []}],
}

good := {
	"now_ms": 1000,
	"now": "now",
	"agreement": {
		"id": "a",
		"assigner": "did:web:p",
		"assignee": "did:web:c",
		"target": "d",
		"classification": "important",
		"state": "active",
		"terms": terms,
	},
	"provider": "did:web:p",
	"consumer": {"did": "did:web:c", "state": "active", "roles": ["consumer"]},
	"dataset": {
		"id": "d",
		"classification": "important",
		"privacy_unit": "tailnum",
		"columns": [
			{"name": "dest", "role": "dimension"},
			{"name": "delay", "role": "measure"},
			{"name": "tailnum", "role": "unit"},
			{"name": "engine", "role": "hidden"},
			{"name": "seats", "role": "measure"},
		],
	},
	"use": {"purpose": "tourism-planning", "action": "use"},
	"request": {
		"output": "aggregate",
		"columns": [
			{"name": "dest", "role": "dimension", "places": ["group", "filter"], "aggregates": []},
			{"name": "delay", "role": "measure", "places": ["aggregate"], "aggregates": ["avg"]},
			{"name": "tailnum", "role": "unit", "places": ["aggregate"], "aggregates": ["count_distinct"]},
		],
		"aggregates": ["avg", "count_distinct"],
		"functions": [],
		"whole": false,
	},
	"counters": {"uses": 3, "reserved": 1},
}

changed(path, value) := json.patch(good, [{"op": "replace", "path": path, "value": value}])

with_constraint(c) := changed("/agreement/terms/permission/0/constraint", array.concat(constraints, [c]))

with_columns(columns) := changed("/request/columns", columns)

general := json.patch(good, [
	{"op": "replace", "path": "/dataset/classification", "value": "general"},
	{"op": "replace", "path": "/agreement/classification", "value": "general"},
	{"op": "replace", "path": "/agreement/terms/permission/0/constraint", "value": []},
])

refuses(document, term) if {
	answer := usage.decision with input as document
	answer.allow == false
	answer.obligations == {}
	some reason in answer.reasons
	reason.term == term
}

allows(document) if {
	answer := usage.decision with input as document
	answer.allow == true
	answer.reasons == []
}

test_allows_with_obligations if {
	answer := usage.decision with input as good
	answer == {"allow": true, "reasons": [], "obligations": {
		"hidden_columns": ["engine", "seats"],
		"minimum_group": 10,
		"privacy_unit": "tailnum",
		"row_cap": 500,
	}}
}

test_agreement_not_active if refuses(changed("/agreement/state", "ended"), "agreement")

test_another_assigner if refuses(changed("/provider", "did:web:x"), "assigner")

test_another_assignee if refuses(changed("/consumer/did", "did:web:x"), "assignee")

test_another_target if refuses(changed("/dataset/id", "x"), "target")

test_member_suspended if refuses(changed("/consumer/state", "suspended"), "member")

test_action if refuses(changed("/use/action", "sell"), "action")

test_purpose if refuses(changed("/use/purpose", "marketing"), "purpose")

test_no_purpose if refuses(changed("/use/purpose", ""), "purpose")

test_last_moment if allows(changed("/now_ms", 1999))

test_end if refuses(changed("/now_ms", 2000), "dateTime")

test_before_start if refuses(with_constraint({"left": "dateTime", "operator": "gt", "right": 1000, "unit": "", "text": "t"}), "dateTime")

test_last_use if allows(changed("/counters/uses", 18))

test_no_use_left if refuses(changed("/counters/uses", 19), "count")

test_reserved_uses_count if refuses(changed("/counters/reserved", 17), "count")

test_rows if {
	refuses(changed("/request/output", "rows"), "tds:output")
	refuses(changed("/request/output", "rows"), "tds:minimumGroup")
}

test_rows_of_important_data_without_the_term if {
	document := json.patch(general, [
		{"op": "replace", "path": "/request/output", "value": "rows"},
		{"op": "replace", "path": "/dataset/classification", "value": "important"},
	])
	refuses(document, "tds:output")
}

test_rows_of_general_data if {
	allows(json.patch(general, [{"op": "replace", "path": "/request/output", "value": "rows"}]))
}

test_core if refuses(changed("/dataset/classification", "core"), "tds:classification")

test_column_hidden_by_the_owner if {
	refuses(with_columns([{"name": "engine", "places": ["aggregate"], "aggregates": ["count"]}]), "tds:hiddenColumns")
}

test_column_hidden_by_the_terms if {
	refuses(with_columns([{"name": "seats", "places": ["aggregate"], "aggregates": ["avg"]}]), "tds:hiddenColumns")
}

test_hidden_column_that_does_not_exist if {
	refuses(
		with_constraint({"left": "tds:hiddenColumns", "operator": "isNoneOf", "right": ["seat"], "unit": "", "text": "seat"}),
		"tds:hiddenColumns",
	)
}

test_unknown_column if {
	refuses(with_columns([{"name": "x", "places": ["group"], "aggregates": []}]), "tds:columnRole")
}

test_unit_only_counted if {
	every place in ["filter", "group", "join", "order", "select"] {
		refuses(with_columns([{"name": "tailnum", "places": [place], "aggregates": []}]), "tds:privacyUnit")
	}
	refuses(with_columns([{"name": "tailnum", "places": ["aggregate"], "aggregates": ["max"]}]), "tds:privacyUnit")

	# Where the description does not say which aggregate, all of them must count.
	refuses(with_columns([{"name": "tailnum", "places": ["aggregate"], "aggregates": []}]), "tds:privacyUnit")
}

test_measure_in_place if {
	every place in ["filter", "group", "join"] {
		refuses(with_columns([{"name": "delay", "places": [place], "aggregates": []}]), "tds:columnRole")
	}
}

test_aggregate_that_hands_out_a_value if refuses(changed("/request/aggregates", ["max"]), "tds:aggregates")

test_unknown_terms if {
	every c in [
		{"left": "spatial", "operator": "eq", "right": "CN", "unit": "", "text": "CN"},
		{"left": "count", "operator": "lt", "right": 5, "unit": "", "text": "5"},
		{"left": "count", "operator": "lteq", "right": "5", "unit": "", "text": "5"},
		{"left": "dateTime", "operator": "lt", "right": "soon", "unit": "", "text": "soon"},
	] {
		refuses(with_constraint(c), c.left)
	}
	refuses(changed("/agreement/terms/obligation", [{"action": "compensate", "constraint": []}]), "obligation")
}

test_prohibition if {
	purpose := {"left": "purpose", "operator": "eq", "right": "tourism-planning", "unit": "", "text": "tourism-planning"}
	other := object.union(purpose, {"right": "marketing", "text": "marketing"})
	refuses(changed("/agreement/terms/prohibition", [{"action": "use", "constraint": [purpose]}]), "prohibition")
	refuses(changed("/agreement/terms/prohibition", [{"action": "use", "constraint": []}]), "prohibition")
	allows(changed("/agreement/terms/prohibition", [{"action": "use", "constraint": [other]}]))
}

# A transfer of the whole dataset.

whole := json.patch(good, [
	{"op": "replace", "path": "/agreement/classification", "value": "general"},
	{"op": "replace", "path": "/agreement/terms/permission/0/constraint", "value": array.slice(constraints, 0, 3)},
	{"op": "replace", "path": "/dataset/classification", "value": "general"},
	{"op": "replace", "path": "/dataset/columns", "value": [{"name": "dest", "role": "dimension"}]},
	{"op": "replace", "path": "/request", "value": {
		"output": "rows",
		"columns": [{"name": "dest", "role": "dimension", "places": ["select"], "aggregates": []}],
		"aggregates": [],
		"functions": [],
		"whole": true,
	}},
])

test_whole if {
	allows(whole)
	refuses(json.patch(whole, [{"op": "replace", "path": "/dataset/classification", "value": "important"}]), "tds:output")
	refuses(json.patch(whole, [{"op": "replace", "path": "/dataset/columns/0/role", "value": "hidden"}]), "tds:hiddenColumns")
	refuses(json.patch(whole, [{"op": "replace", "path": "/request/columns", "value": []}]), "policy")
	refuses(json.patch(whole, [{"op": "replace", "path": "/use/purpose", "value": ""}]), "purpose")
}

test_whole_breaks_terms_of_results if {
	every at in [3, 4, 5, 6] {
		kept := json.patch(whole, [
			{"op": "add", "path": "/agreement/terms/permission/0/constraint/-", "value": constraints[at]},
			{"op": "add", "path": "/dataset/columns/-", "value": {"name": "seats", "role": "measure"}},
			{"op": "add", "path": "/request/columns/-", "value": {"name": "seats", "role": "measure", "places": ["select"], "aggregates": []}},
		])
		refuses(kept, constraints[at].left)
	}
}

test_all_failing_terms_in_order if {
	document := json.patch(good, [
		{"op": "replace", "path": "/use/purpose", "value": "marketing"},
		{"op": "replace", "path": "/counters/uses", "value": 20},
		{"op": "replace", "path": "/counters/reserved", "value": 0},
	])
	answer := usage.decision with input as document
	answer.reasons == [
		{"term": "count", "observed": "20 of 20 uses", "allowed": "at most 20 uses"},
		{"term": "purpose", "observed": "marketing", "allowed": "one of: tourism-planning"},
	]
}

test_malformed if {
	every path in ["/agreement/terms", "/agreement", "/dataset/columns", "/request/columns", "/consumer", "/now_ms"] {
		refuses(json.patch(good, [{"op": "remove", "path": path}]), "policy")
	}
	refuses({}, "policy")
}

test_no_space_rules if {
	answer := usage.decision with input as good with data.space as {}
	answer.allow == false
}
