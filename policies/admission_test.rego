package dataspace.admission_test

import data.dataspace.admission

good := {
	"now_ms": 1000,
	"invitation": {
		"organisation": "Airport",
		"did": "",
		"roles": ["consumer", "provider"],
		"expires_ms": 2000,
		"spent": false,
	},
	"request": {"did": "did:web:airport.example", "name": "Airport", "roles": ["provider"], "endpoint": "h:1"},
	"existing": "",
}

changed(path, value) := json.patch(good, [{"op": "replace", "path": path, "value": value}])

allows(document) if {
	answer := admission.decision with input as document
	answer == {"allow": true, "reasons": [], "obligations": {}}
}

refuses(document, term) if {
	answer := admission.decision with input as document
	answer.allow == false
	some reason in answer.reasons
	reason.term == term
}

test_admits if {
	allows(good)
	allows(changed("/invitation/did", "did:web:airport.example"))
}

test_invitation if {
	refuses(changed("/invitation/spent", true), "invitation")
	refuses(changed("/now_ms", 2000), "invitation")
	allows(changed("/now_ms", 1999))
}

test_candidate if {
	refuses(changed("/invitation/did", "did:web:other.example"), "did")
	refuses(changed("/request/did", "did:key:z6Mk"), "did")
	refuses(changed("/request/name", "Another"), "organisation")
	refuses(changed("/request/roles", ["provider", "operator"]), "role")
	refuses(changed("/request/roles", []), "role")
	refuses(changed("/invitation/roles", ["consumer"]), "role")
}

test_role_that_the_space_does_not_have if {
	document := json.patch(good, [
		{"op": "replace", "path": "/invitation/roles", "value": ["operator"]},
		{"op": "replace", "path": "/request/roles", "value": ["operator"]},
	])
	refuses(document, "role")
}

test_endpoint if {
	refuses(changed("/request/endpoint", ""), "endpoint")
	allows(json.patch(good, [
		{"op": "replace", "path": "/request/endpoint", "value": ""},
		{"op": "replace", "path": "/request/roles", "value": ["consumer"]},
	]))
}

test_member_already if {
	every state in ["active", "suspended", "revoked"] {
		refuses(changed("/existing", state), "member")
	}
}

test_member_that_is_invited_again if {
	invited := changed("/invitation/did", "did:web:airport.example")
	allows(json.patch(invited, [{"op": "replace", "path": "/existing", "value": "active"}]))
	refuses(json.patch(invited, [{"op": "replace", "path": "/existing", "value": "revoked"}]), "member")
}

test_malformed if {
	refuses(changed("/invitation", {}), "policy")
	refuses({}, "policy")
}
