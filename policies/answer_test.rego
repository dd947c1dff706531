package dataspace.answer_test

import data.dataspace.answer

test_every_decision_with_its_bundle if {
	every name in ["admission", "listing", "metering", "negotiation", "usage"] {
		found := answer[name] with data.dataspace.bundle as {"digest": "00"} with input as {}
		found.bundle == "00"
		found.decision.allow == false
	}
}

test_no_answer_without_a_digest if {
	not answer.usage with data.dataspace.bundle as {} with input as {}
}
