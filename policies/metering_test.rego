package dataspace.metering_test

import data.dataspace.metering

purpose := {"left": "purpose", "operator": "isAnyOf", "right": ["routing"], "unit": "", "text": "routing"}

constraints := [
	purpose,
	{"left": "dateTime", "operator": "lt", "right": 2000, "unit": "", "text": "the end"},
	{"left": "count", "operator": "lteq", "right": 20, "unit": "", "text": "20"},
]

good := {
	"now_ms": 1000,
	"now": "now",
	"agreement": {
		"id": "a",
		"assigner": "did:web:p",
		"assignee": "did:web:c",
		"target": "d",
		"classification": "general",
		"state": "active",
		"terms": {
			"permission": [{"action": "use", "constraint": constraints}],
			"prohibition": [{"action": "distribute", "constraint": []}],
			"obligation": [{"action": "attribute", "constraint": []}],
		},
	},
	"provider": "did:web:p",
	"consumer": {"did": "did:web:c", "state": "active", "roles": ["consumer"]},
	"dataset": {
		"id": "d",
		"classification": "general",
		"privacy_unit": "",
		"columns": [{"name": "dest", "role": "dimension"}, {"name": "seats", "role": "measure"}],
	},
	"use": {"purpose": "routing", "action": "use"},
	"request": {"output": "rows", "columns": [], "aggregates": [], "functions": []},
}

changed(path, value) := json.patch(good, [{"op": "replace", "path": path, "value": value}])

with_constraint(c) := changed("/agreement/terms/permission/0/constraint", array.concat(constraints, [c]))

moment(operator, at) := {"left": "dateTime", "operator": operator, "right": at, "unit": "", "text": "t"}

prohibiting(list) := changed("/agreement/terms/prohibition", [{"action": "use", "constraint": list}])

refuses(document, term) if {
	answer := metering.decision with input as document
	answer.allow == false
	answer.obligations == {}
	some reason in answer.reasons
	reason.term == term
}

window(document) := [answer.obligations.first_ms, answer.obligations.last_ms] if {
	answer := metering.decision with input as document
	answer.allow == true
	answer.reasons == []
}

test_allows_with_what_records_are_held_to if {
	answer := metering.decision with input as good
	answer == {
		"allow": true,
		"reasons": [],
		"obligations": {"first_ms": 0, "last_ms": 1999, "limit": 20},
	}
}

test_no_terms_of_time_or_count if {
	answer := metering.decision with input as changed("/agreement/terms/permission/0/constraint", [])
	answer.obligations == {"first_ms": 0, "last_ms": 253402300799999, "limit": 0}
}

test_agreement_not_active if refuses(changed("/agreement/state", "ended"), "agreement")

test_another_assigner if refuses(changed("/provider", "did:web:x"), "assigner")

test_another_assignee if refuses(changed("/consumer/did", "did:web:x"), "assignee")

test_another_target if refuses(changed("/dataset/id", "x"), "target")

test_member_suspended if refuses(changed("/consumer/state", "suspended"), "member")

test_action if refuses(changed("/use/action", "sell"), "action")

test_purpose if refuses(changed("/use/purpose", "marketing"), "purpose")

test_no_purpose if refuses(changed("/use/purpose", ""), "purpose")

test_all_times if {
	window(with_constraint(moment("gteq", 500))) == [500, 1999]
	window(with_constraint(moment("gt", 500))) == [501, 1999]
	window(with_constraint(moment("lteq", 1500))) == [0, 1500]
	window(with_constraint(moment("lt", 3000))) == [0, 1999]
}

test_served_in_time_reported_late if window(changed("/now_ms", 5000)) == [0, 1999]

test_no_time if refuses(with_constraint(moment("gt", 2500)), "dateTime")

test_the_least_count if {
	document := with_constraint({"left": "count", "operator": "lteq", "right": 7, "unit": "", "text": "7"})
	answer := metering.decision with input as document
	answer.obligations.limit == 7
}

test_terms_that_no_report_shows if {
	every c in [
		{"left": "tds:output", "operator": "eq", "right": "aggregate", "unit": "", "text": "aggregate"},
		{"left": "tds:hiddenColumns", "operator": "isNoneOf", "right": ["seats"], "unit": "", "text": "seats"},
		{"left": "tds:rowCap", "operator": "lteq", "right": 500, "unit": "", "text": "500"},
	] {
		refuses(with_constraint(c), c.left)
	}
	group := {"left": "tds:minimumGroup", "operator": "gteq", "right": 10, "unit": "dest", "text": "10"}
	refuses(
		json.patch(with_constraint(group), [{"op": "replace", "path": "/dataset/privacy_unit", "value": "dest"}]),
		"tds:minimumGroup",
	)
}

test_data_that_may_only_be_computed_on if {
	refuses(changed("/dataset/classification", "important"), "tds:output")
	refuses(changed("/agreement/classification", "important"), "tds:output")
	refuses(changed("/dataset/classification", "core"), "tds:classification")
}

test_unknown_terms if {
	every c in [
		{"left": "spatial", "operator": "eq", "right": "CN", "unit": "", "text": "CN"},
		{"left": "count", "operator": "lt", "right": 5, "unit": "", "text": "5"},
		{"left": "dateTime", "operator": "lt", "right": "soon", "unit": "", "text": "soon"},
	] {
		refuses(with_constraint(c), c.left)
	}
	refuses(changed("/agreement/terms/obligation", [{"action": "compensate", "constraint": []}]), "obligation")
}

test_prohibition if {
	refuses(prohibiting([]), "prohibition")
	refuses(prohibiting([purpose]), "prohibition")
	other := object.union(purpose, {"right": ["marketing"]})
	window(prohibiting([other])) == [0, 1999]
	window(prohibiting([other, moment("gteq", 0)])) == [0, 1999]
}

# From 400 to 600 no use, and now it is before, within and after that.
test_prohibited_period if {
	document := prohibiting([purpose, moment("gteq", 400), moment("lt", 600)])
	window(json.patch(document, [{"op": "replace", "path": "/now_ms", "value": 300}])) == [0, 399]
	window(json.patch(document, [{"op": "replace", "path": "/now_ms", "value": 599}])) == [0, 399]
	window(json.patch(document, [{"op": "replace", "path": "/now_ms", "value": 600}])) == [600, 1999]
}

test_prohibited_period_that_leaves_nothing if {
	refuses(prohibiting([moment("lt", 1000000)]), "prohibition")
	window(prohibiting([moment("gteq", 600), moment("lt", 400)])) == [0, 1999]
}

test_malformed if {
	every path in ["/agreement/terms", "/agreement", "/dataset/columns", "/request", "/consumer", "/now_ms"] {
		refuses(json.patch(good, [{"op": "remove", "path": path}]), "policy")
	}
	refuses(changed("/request/output", "aggregate"), "policy")
	refuses({}, "policy")
}

test_no_space_rules if {
	answer := metering.decision with input as good with data.space as {}
	answer.allow == false
}
