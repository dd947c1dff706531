package dataspace.terms_test

import data.dataspace.terms

constraint(left, operator, right, unit) := {
	"left": left,
	"operator": operator,
	"right": right,
	"unit": unit,
	"text": "t",
}

test_understood if {
	every c in [
		constraint("purpose", "eq", "a", ""),
		constraint("purpose", "isAnyOf", ["a", "b"], ""),
		constraint("dateTime", "lt", 1, ""),
		constraint("dateTime", "lteq", 1, ""),
		constraint("dateTime", "gt", 1, ""),
		constraint("dateTime", "gteq", 1, ""),
		constraint("count", "lteq", 1, ""),
		constraint("tds:output", "eq", "aggregate", ""),
		constraint("tds:minimumGroup", "gteq", 2, "u"),
		constraint("tds:hiddenColumns", "isNoneOf", ["a"], ""),
		constraint("tds:rowCap", "lteq", 1, ""),
	] {
		terms.understood(c)
	}
}

test_not_understood if {
	every c in [
		constraint("purpose", "isAnyOf", "a", ""),
		constraint("purpose", "isAnyOf", [], ""),
		constraint("purpose", "isNoneOf", ["a"], ""),
		constraint("purpose", "eq", ["a"], ""),
		constraint("purpose", "eq", "a", "unit"),
		constraint("dateTime", "eq", 1, ""),
		constraint("dateTime", "lt", "2026-12-31", ""),
		constraint("count", "lteq", 0, ""),
		constraint("count", "lteq", "20", ""),
		constraint("count", "lt", 20, ""),
		constraint("count", "lteq", 20, "day"),
		constraint("tds:output", "eq", "rows", ""),
		constraint("tds:minimumGroup", "gteq", 1, "u"),
		constraint("tds:minimumGroup", "gteq", 10, ""),
		constraint("tds:minimumGroup", "gt", 10, "u"),
		constraint("tds:hiddenColumns", "isNoneOf", [], ""),
		constraint("tds:hiddenColumns", "isNoneOf", "a", ""),
		constraint("tds:rowCap", "lteq", -1, ""),
		constraint("spatial", "eq", "CN", ""),
		constraint("", "", "", ""),
	] {
		not terms.understood(c)
	}
}

test_implies if {
	terms.implies(constraint("purpose", "eq", "a", ""), constraint("purpose", "isAnyOf", ["a", "b"], ""))
	not terms.implies(constraint("purpose", "isAnyOf", ["a", "b"], ""), constraint("purpose", "eq", "a", ""))
	terms.implies(constraint("dateTime", "lt", 10, ""), constraint("dateTime", "lteq", 9, ""))
	not terms.implies(constraint("dateTime", "lteq", 10, ""), constraint("dateTime", "lt", 10, ""))
	terms.implies(constraint("dateTime", "gt", 9, ""), constraint("dateTime", "gteq", 10, ""))
	not terms.implies(constraint("dateTime", "gteq", 9, ""), constraint("dateTime", "gt", 9, ""))
	not terms.implies(constraint("dateTime", "lt", 5, ""), constraint("dateTime", "gt", 5, ""))
	not terms.implies(constraint("count", "lteq", 5, ""), constraint("tds:rowCap", "lteq", 5, ""))
	not terms.implies(constraint("tds:minimumGroup", "gteq", 20, "a"), constraint("tds:minimumGroup", "gteq", 10, "b"))
}

test_problems if {
	use := {"action": "use", "constraint": []}
	terms.problems({"permission": [use], "prohibition": [], "obligation": []}) == set()
	count(terms.problems({"permission": [use, use], "prohibition": [], "obligation": []})) == 1
	count(terms.problems({"permission": [], "prohibition": [], "obligation": []})) == 1
}
