package dataspace.space_test

import data.dataspace.space

rules := {
	"aggregates": ["count"],
	"classifications": ["general"],
	"maximum_agreement_days": 1,
	"minimum_group": 10,
	"roles": ["consumer"],
}

dataset(classification) := {"id": "d", "classification": classification, "privacy_unit": "u", "columns": []}

terms(constraints) := {
	"permission": [{"action": "use", "constraint": constraints}],
	"prohibition": [],
	"obligation": [],
}

end(ms) := {"left": "dateTime", "operator": "lt", "right": ms, "unit": "", "text": "t"}

group(n) := {"left": "tds:minimumGroup", "operator": "gteq", "right": n, "unit": "u", "text": "n"}

broken(t, d) := {breach[0] |
	some breach in space.breaches(t, d) with input as {"now_ms": 1000, "dataset": d} with data.space as rules
}

test_longest_agreement if {
	broken(terms([]), dataset("general")) == {"dateTime"}
	broken(terms([end(86401002)]), dataset("general")) == {"dateTime"}
	broken(terms([end(86401001)]), dataset("general")) == set()
}

test_smallest_group if {
	broken(terms([end(2000), group(9)]), dataset("general")) == {"tds:minimumGroup"}
	broken(terms([end(2000), group(10)]), dataset("general")) == set()
}

test_compute_only if {
	broken(terms([end(2000)]), dataset("important")) == {"tds:output", "tds:minimumGroup"}
}

test_classifications if {
	space.classification_allowed with input as {"dataset": dataset("general")} with data.space as rules
	not space.classification_allowed with input as {"dataset": dataset("important")} with data.space as rules
}

# No space can allow core data.
test_core if {
	open := object.union(rules, {"classifications": ["core"]})
	not space.classification_allowed with input as {"dataset": dataset("core")} with data.space as open
}

test_without_its_data_nothing_is_configured if {
	space.configured with data.space as rules
	not space.configured with data.space as {}
	not space.configured with data.space as object.union(rules, {"minimum_group": "10"})
}
