# What every decision shares: shapes of the input, and how reasons are written.
#
# A refusal is a triple [term, observed, allowed] of strings. Refusals are collected in sets and
# leave in one order, sorted, so that two engines give the same bytes.
package dataspace.common

reasons(refusals) := [{"term": r[0], "observed": r[1], "allowed": r[2]} | some r in sort(refusals)]

# "a, b, c", sorted, at most twelve of them.
listed(names) := concat(", ", sort(names)) if count(names) <= 12

listed(names) := sprintf("%s and %d more", [
	concat(", ", array.slice(sort(names), 0, 12)),
	count(names) - 12,
]) if {
	count(names) > 12
}

# An empty text would read as if something were missing.
shown(text) := text if text != ""

shown("") := "none"

strings(values) if {
	is_array(values)
	every value in values {
		is_string(value)
	}
}

is_member(party) if {
	is_string(party.did)
	is_string(party.state)
	strings(party.roles)
}

is_dataset(dataset) if {
	is_string(dataset.id)
	is_string(dataset.classification)
	is_string(dataset.privacy_unit)
	is_array(dataset.columns)
	every column in dataset.columns {
		is_string(column.name)
		column.role in {"dimension", "measure", "unit", "hidden"}
	}
	count({column.name | some column in dataset.columns}) == count(dataset.columns)
}

is_terms(terms) if {
	are_rules(terms.permission)
	are_rules(terms.prohibition)
	are_rules(terms.obligation)
}

are_rules(rules) if {
	is_array(rules)
	every rule in rules {
		is_string(rule.action)
		are_constraints(rule.constraint)
	}
}

are_constraints(constraints) if {
	is_array(constraints)
	every constraint in constraints {
		is_string(constraint.left)
		is_string(constraint.operator)
		is_string(constraint.unit)
		is_string(constraint.text)
		type_name(constraint.right) in {"string", "number", "array"}
	}
}
