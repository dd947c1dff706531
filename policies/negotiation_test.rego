package dataspace.negotiation_test

import data.dataspace.negotiation

purposes(list) := {"left": "purpose", "operator": "isAnyOf", "right": list, "unit": "", "text": concat(", ", list)}

end(ms) := {"left": "dateTime", "operator": "lt", "right": ms, "unit": "", "text": "the end"}

uses(n) := {"left": "count", "operator": "lteq", "right": n, "unit": "", "text": "n"}

group(n) := {"left": "tds:minimumGroup", "operator": "gteq", "right": n, "unit": "tailnum", "text": "n"}

aggregates := {"left": "tds:output", "operator": "eq", "right": "aggregate", "unit": "", "text": "aggregate"}

hidden(list) := {"left": "tds:hiddenColumns", "operator": "isNoneOf", "right": list, "unit": "", "text": concat(", ", list)}

offered := [purposes(["a", "b"]), end(2000), uses(20), aggregates, group(10), hidden(["seats"])]

terms(constraints) := {
	"permission": [{"action": "use", "constraint": constraints}],
	"prohibition": [{"action": "sell", "constraint": []}],
	"obligation": [{"action": "attribute", "constraint": []}],
}

asking(requested, manual) := {
	"now_ms": 1000,
	"now": "now",
	"provider": "did:web:p",
	"consumer": {"did": "did:web:c", "state": "active", "roles": ["consumer"]},
	"dataset": {
		"id": "d",
		"classification": "important",
		"privacy_unit": "tailnum",
		"columns": [
			{"name": "dest", "role": "dimension"},
			{"name": "seats", "role": "measure"},
			{"name": "tailnum", "role": "unit"},
		],
	},
	"offer": {"terms": terms(offered)},
	"requested": {"terms": requested},
	"manual_approval": manual,
}

same := asking(terms(offered), false)

outcome(document, wanted) if {
	answer := negotiation.decision with input as document
	answer.outcome == wanted
	answer.allow == allowing[wanted]
}

allowing := {"approve": true, "ask": false, "refuse": false}

says(document, wanted, term) if {
	outcome(document, wanted)
	answer := negotiation.decision with input as document
	some reason in answer.reasons
	reason.term == term
}

changed(path, value) := json.patch(same, [{"op": "replace", "path": path, "value": value}])

test_the_same_terms if outcome(same, "approve")

test_stricter_terms if {
	stricter := [purposes(["b"]), end(1500), uses(5), aggregates, group(12), hidden(["seats", "dest"])]
	outcome(asking(terms(stricter), false), "approve")
	outcome(asking(terms(array.concat(stricter, offered)), false), "approve")
}

test_other_terms if {
	every i, looser in [purposes(["a", "c"]), end(2001), uses(21)] {
		constraints := json.patch(offered, [{"op": "replace", "path": sprintf("/%d", [i]), "value": looser}])
		says(asking(terms(constraints), false), "ask", looser.left)
	}
	says(asking(terms([purposes(["a"]), uses(1), aggregates, group(10), hidden(["seats"])]), false), "ask", "dateTime")
	says(asking(terms([purposes(["a"]), end(1500), uses(1), aggregates, group(9), hidden(["seats"])]), false), "ask", "tds:minimumGroup")
	says(asking(terms([purposes(["a"]), end(1500), uses(1), aggregates, group(10)]), false), "ask", "tds:hiddenColumns")
	says(changed("/requested/terms/prohibition", []), "ask", "prohibition")
	says(changed("/requested/terms/obligation", []), "ask", "obligation")
}

test_closed_and_open_ends if {
	closed := {"left": "dateTime", "operator": "lteq", "right": 2000, "unit": "", "text": "the end"}
	says(asking(terms([purposes(["a"]), closed, uses(1), aggregates, group(10), hidden(["seats"])]), false), "ask", "dateTime")
	earlier := object.union(closed, {"right": 1999})
	outcome(asking(terms([purposes(["a"]), earlier, uses(1), aggregates, group(10), hidden(["seats"])]), false), "approve")
}

test_manual_approval if says(asking(terms(offered), true), "ask", "approval")

test_refused_whoever_would_approve if {
	says(changed("/consumer/state", "suspended"), "refuse", "member")
	says(changed("/consumer/roles", ["provider"]), "refuse", "role")
	says(changed("/consumer/did", "did:web:p"), "refuse", "assignee")
	says(changed("/dataset/classification", "core"), "refuse", "tds:classification")
	says(changed("/requested/terms/permission/0/action", "sell"), "refuse", "permission")
	says(changed("/requested/terms/permission", []), "refuse", "permission")
	says(changed("/requested/terms/permission/0/constraint/2/left", "spatial"), "refuse", "spatial")
	says(changed("/requested/terms/permission/0/constraint/4/right", 4), "refuse", "tds:minimumGroup")
	says(changed("/requested/terms/permission/0/constraint/4/unit", "dest"), "refuse", "tds:minimumGroup")
	says(changed("/requested/terms/permission/0/constraint/5/right", ["seat"]), "refuse", "tds:hiddenColumns")
	says(changed("/requested/terms/permission/0/constraint", [purposes(["a"])]), "refuse", "tds:output")
	says(changed("/requested/terms/permission/0/constraint/1/right", 1000), "refuse", "dateTime")
}

test_refusal_comes_before_approval_by_a_person if {
	document := json.patch(same, [
		{"op": "replace", "path": "/manual_approval", "value": true},
		{"op": "replace", "path": "/consumer/state", "value": "revoked"},
	])
	outcome(document, "refuse")
}

test_malformed if {
	says(changed("/requested", {}), "refuse", "policy")
	says(changed("/offer", {}), "refuse", "policy")
	says(changed("/manual_approval", "no"), "refuse", "policy")
	says({}, "refuse", "policy")
}
