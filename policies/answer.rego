# What an OPA server is asked: a decision together with the digest of the bundle that made it.
#
# The loader writes data.dataspace.bundle.digest. Where it is missing nothing is answered, and
# no answer is a refusal.
package dataspace.answer

admission := {"bundle": data.dataspace.bundle.digest, "decision": data.dataspace.admission.decision}

listing := {"bundle": data.dataspace.bundle.digest, "decision": data.dataspace.listing.decision}

metering := {"bundle": data.dataspace.bundle.digest, "decision": data.dataspace.metering.decision}

negotiation := {"bundle": data.dataspace.bundle.digest, "decision": data.dataspace.negotiation.decision}

usage := {"bundle": data.dataspace.bundle.digest, "decision": data.dataspace.usage.decision}
