package dataspace.listing_test

import data.dataspace.listing

important := [
	{"left": "tds:output", "operator": "eq", "right": "aggregate", "unit": "", "text": "aggregate"},
	{"left": "tds:minimumGroup", "operator": "gteq", "right": 10, "unit": "tailnum", "text": "10"},
]

listed(classification, accepted, constraints) := {
	"now_ms": 1000,
	"now": "now",
	"publisher": {"did": "did:web:p", "state": "active", "roles": ["provider"]},
	"dataset": {
		"id": "d",
		"publisher": "did:web:p",
		"classification": classification,
		"privacy_unit": "tailnum",
		"columns": [{"name": "dest", "role": "dimension"}, {"name": "tailnum", "role": "unit"}],
		"accept_free_sql": accepted,
	},
	"offers": [{"id": "o", "terms": {
		"permission": [{"action": "use", "constraint": constraints}],
		"prohibition": [],
		"obligation": [],
	}}],
}

good := listed("important", true, important)

changed(path, value) := json.patch(good, [{"op": "replace", "path": path, "value": value}])

allows(document) if {
	answer := listing.decision with input as document
	answer == {"allow": true, "reasons": [], "obligations": {}}
}

refuses(document, term) if {
	answer := listing.decision with input as document
	answer.allow == false
	some reason in answer.reasons
	reason.term == term
}

test_important if allows(good)

test_general if allows(listed("general", false, []))

test_core_never if refuses(listed("core", true, important), "tds:classification")

test_important_without_the_owners_word if refuses(listed("important", false, important), "tds:freeSql")

test_important_rows if {
	refuses(listed("important", true, [important[1]]), "tds:output")
	refuses(listed("important", true, [important[0]]), "tds:minimumGroup")
	refuses(changed("/dataset/privacy_unit", ""), "tds:privacyUnit")
}

test_group_below_the_space_floor if {
	refuses(changed("/offers/0/terms/permission/0/constraint/1/right", 4), "tds:minimumGroup")
}

test_group_by_another_unit if {
	refuses(changed("/offers/0/terms/permission/0/constraint/1/unit", "dest"), "tds:minimumGroup")
}

test_terms_that_are_not_understood if {
	refuses(changed("/offers/0/terms/permission/0/constraint/0/left", "spatial"), "spatial")
	refuses(changed("/offers/0/terms/permission", []), "permission")
	refuses(changed("/offers/0/terms/obligation", [{"action": "compensate", "constraint": []}]), "obligation")
	refuses(changed("/offers/0/terms/prohibition", [{"action": "print", "constraint": []}]), "prohibition")
}

test_no_offer if refuses(changed("/offers", []), "offer")

test_publisher if {
	refuses(changed("/publisher/state", "suspended"), "member")
	refuses(changed("/publisher/roles", ["consumer"]), "role")
	refuses(changed("/publisher/did", "did:web:x"), "publisher")
}

test_malformed if {
	refuses(changed("/dataset", {}), "policy")
	refuses(changed("/dataset/accept_free_sql", "yes"), "policy")
	refuses({}, "policy")
}
