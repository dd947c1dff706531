# May this candidate become a member of the space?
#
# Signatures, the invitation's secret and the proofs of possession are checked before this is
# asked. input: now_ms, invitation {organisation, did, roles, expires_ms, spent}, request {did,
# name, roles, endpoint}, existing (the membership state that the DID has already, or "").
package dataspace.admission

import data.dataspace.common
import data.dataspace.space

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
	unspent
	unexpired
	did_is_web
	did_invited
	name_invited
	some_role
	reachable
	new_member
	count(refusals) == 0
	every role in input.request.roles {
		role_invited(role)
	}
}

decision := {"allow": false, "reasons": common.reasons(refusals), "obligations": {}} if {
	well_formed
	count(refusals) > 0
}

well_formed if {
	space.configured
	is_number(input.now_ms)
	is_string(input.invitation.organisation)
	is_string(input.invitation.did)
	common.strings(input.invitation.roles)
	is_number(input.invitation.expires_ms)
	is_boolean(input.invitation.spent)
	is_string(input.request.did)
	is_string(input.request.name)
	common.strings(input.request.roles)
	is_string(input.request.endpoint)
	is_string(input.existing)
}

unspent if input.invitation.spent == false

unexpired if input.now_ms < input.invitation.expires_ms

did_is_web if startswith(input.request.did, "did:web:")

did_invited if input.invitation.did == ""

did_invited if input.invitation.did == input.request.did

name_invited if {
	input.request.name != ""
	input.request.name == input.invitation.organisation
}

some_role if count(input.request.roles) > 0

role_invited(role) if {
	role in input.invitation.roles
	role in space.rules.roles
}

# Peers dial a provider; who only consumes needs no door.
reachable if input.request.endpoint != ""

reachable if not provides

provides if "provider" in input.request.roles

new_member if input.existing == ""

# A member comes again, with new keys, on an invitation that names it.
new_member if {
	input.existing == "active"
	input.invitation.did == input.request.did
}

refusals contains ["invitation", "used already", "an invitation that is not used"] if not unspent

refusals contains ["invitation", "expired", "an invitation before its end"] if not unexpired

refusals contains ["did", common.shown(input.request.did), "a did:web"] if not did_is_web

refusals contains ["did", common.shown(input.request.did), "the DID that was invited"] if not did_invited

refusals contains ["organisation", common.shown(input.request.name), "the organisation that was invited"] if {
	not name_invited
}

refusals contains ["role", "none", common.shown(common.listed(input.invitation.roles))] if not some_role

refusals contains ["role", common.shown(role), common.shown(common.listed(input.invitation.roles))] if {
	some role in input.request.roles
	not role_invited(role)
}

refusals contains ["endpoint", "none", "the host and port of the provider's door"] if not reachable

refusals contains ["member", sprintf("a member already, %s", [input.existing]), "a new member, or an active one that was invited by its DID"] if {
	not new_member
}
