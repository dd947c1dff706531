# ODRL 2.2 terms: which of them this node understands, what they say, which are stricter.
#
# connector/policy/constraints.py holds the same list in Python, docs/policy.md explains it.
# A dateTime's right operand arrives as milliseconds since the Unix epoch; one that could not be
# read arrives as text and is not understood.
package dataspace.terms

import data.dataspace.common

# The forms that are understood, for the reader of a refusal.
forms := {
	"purpose": "purpose eq a text, or isAnyOf a list of texts",
	"dateTime": "dateTime lt, lteq, gt or gteq a date and time with its zone, to the millisecond",
	"count": "count lteq a whole number from 1",
	"tds:output": "tds:output eq aggregate",
	"tds:minimumGroup": "tds:minimumGroup gteq a whole number from 2, with the privacy unit as unit",
	"tds:hiddenColumns": "tds:hiddenColumns isNoneOf a list of columns",
	"tds:rowCap": "tds:rowCap lteq a whole number from 1",
}

# Actions that a prohibition may name and that no connector can see happen: they bind by law.
declarative_prohibitions := {"distribute", "sell", "tds:reidentify"}

declarative_obligations := {"attribute"}

# A constraint of the permission.
understood(c) if {
	c.left == "purpose"
	c.unit == ""
	are_purposes(c)
}

understood(c) if {
	c.left == "dateTime"
	c.unit == ""
	c.operator in {"lt", "lteq", "gt", "gteq"}
	is_number(c.right)
}

understood(c) if {
	c.left in {"count", "tds:rowCap"}
	c.unit == ""
	c.operator == "lteq"
	is_number(c.right)
	c.right >= 1
}

understood(c) if {
	c.left == "tds:output"
	c.unit == ""
	c.operator == "eq"
	c.right == "aggregate"
}

understood(c) if {
	c.left == "tds:minimumGroup"
	c.unit != ""
	c.operator == "gteq"
	is_number(c.right)
	c.right >= 2
}

understood(c) if {
	c.left == "tds:hiddenColumns"
	c.unit == ""
	c.operator == "isNoneOf"
	common.strings(c.right)
	count(c.right) > 0
}

are_purposes(c) if {
	c.operator == "eq"
	is_string(c.right)
	c.right != ""
}

are_purposes(c) if {
	c.operator == "isAnyOf"
	common.strings(c.right)
	count(c.right) > 0
}

# A prohibition: of use, by purpose and time; or of what happens after it.
prohibition_understood(p) if {
	p.action == "use"
	every c in p.constraint {
		c.left in {"purpose", "dateTime"}
		understood(c)
	}
}

prohibition_understood(p) if {
	p.action in declarative_prohibitions
	count(p.constraint) == 0
}

obligation_understood(o) if {
	o.action in declarative_obligations
	count(o.constraint) == 0
}

# Everything in these terms that this node cannot enforce or does not know.
problems(t) := union({
	permission_problems(t),
	constraint_problems(t),
	prohibition_problems(t),
	obligation_problems(t),
})

permission_problems(t) := {["permission", sprintf("%d permissions", [count(t.permission)]), "one permission"] |
	count(t.permission) != 1
} | {["permission", common.shown(p.action), "use"] |
	some p in t.permission
	p.action != "use"
}

constraint_problems(t) := {[common.shown(c.left), written(c), form(c.left)] |
	some p in t.permission
	some c in p.constraint
	not understood(c)
}

prohibition_problems(t) := {["prohibition", common.shown(p.action), "use by purpose or dateTime; distribute, sell, tds:reidentify without constraints"] |
	some p in t.prohibition
	not prohibition_understood(p)
}

obligation_problems(t) := {["obligation", common.shown(o.action), "attribute without constraints"] |
	some o in t.obligation
	not obligation_understood(o)
}

form(left) := text if text := forms[left]

form(left) := "a term that this node enforces" if not known(left)

known(left) if forms[left]

written(c) := sprintf("%s %s %s", [c.left, c.operator, operand(c)]) if c.unit == ""

written(c) := sprintf("%s %s %s in %s", [c.left, c.operator, operand(c), c.unit]) if c.unit != ""

operand(c) := c.text if c.text != ""

operand(c) := "no value" if c.text == ""

# Terms that name columns must name this dataset's.
mismatches(t, dataset) := {["tds:hiddenColumns", sprintf("%s is not a column", [name]), "columns of the dataset"] |
	columns := {column.name | some column in dataset.columns}
	some c in of(t, "tds:hiddenColumns")
	some name in c.right
	not name in columns
} | {["tds:minimumGroup", sprintf("counted by %s", [common.shown(c.unit)]), sprintf("counted by %s", [common.shown(dataset.privacy_unit)])] |
	some c in of(t, "tds:minimumGroup")
	c.unit != dataset.privacy_unit
}

# The understood constraints of the permission on one left operand.
of(t, left) := [c |
	some p in t.permission
	some c in p.constraint
	c.left == left
	understood(c)
]

# What an understood constraint allows, in words.
allowed(c) := sprintf("one of: %s", [common.listed(purposes(c))]) if c.left == "purpose"

allowed(c) := sprintf("before %s", [c.text]) if {
	c.left == "dateTime"
	c.operator == "lt"
}

allowed(c) := sprintf("until %s", [c.text]) if {
	c.left == "dateTime"
	c.operator == "lteq"
}

allowed(c) := sprintf("after %s", [c.text]) if {
	c.left == "dateTime"
	c.operator == "gt"
}

allowed(c) := sprintf("from %s", [c.text]) if {
	c.left == "dateTime"
	c.operator == "gteq"
}

allowed(c) := sprintf("at most %d uses", [c.right]) if c.left == "count"

allowed(c) := "aggregates only" if c.left == "tds:output"

allowed(c) := sprintf("groups of at least %d distinct %s", [c.right, c.unit]) if c.left == "tds:minimumGroup"

allowed(c) := sprintf("columns other than: %s", [common.listed(c.right)]) if c.left == "tds:hiddenColumns"

allowed(c) := sprintf("at most %d rows", [c.right]) if c.left == "tds:rowCap"

purposes(c) := {c.right} if c.operator == "eq"

purposes(c) := {purpose | some purpose in c.right} if c.operator == "isAnyOf"

# Whatever satisfies r satisfies o too. Both are understood.
implies(r, o) if {
	r.left == "purpose"
	o.left == "purpose"
	count(purposes(r) - purposes(o)) == 0
}

implies(r, o) if {
	r.left == "dateTime"
	o.left == "dateTime"
	last_moment(r) <= last_moment(o)
}

implies(r, o) if {
	r.left == "dateTime"
	o.left == "dateTime"
	first_moment(r) >= first_moment(o)
}

implies(r, o) if {
	r.left in {"count", "tds:rowCap"}
	o.left == r.left
	r.right <= o.right
}

implies(r, o) if {
	r.left == "tds:output"
	o.left == "tds:output"
}

implies(r, o) if {
	r.left == "tds:minimumGroup"
	o.left == "tds:minimumGroup"
	r.unit == o.unit
	r.right >= o.right
}

implies(r, o) if {
	r.left == "tds:hiddenColumns"
	o.left == "tds:hiddenColumns"
	hidden := {name | some name in r.right}
	every name in o.right {
		name in hidden
	}
}

# The last and the first millisecond that a dateTime constraint allows.
last_moment(c) := c.right if c.operator == "lteq"

last_moment(c) := c.right - 1 if c.operator == "lt"

first_moment(c) := c.right if c.operator == "gteq"

first_moment(c) := c.right + 1 if c.operator == "gt"

same_rule(a, b) if {
	a.action == b.action
	plain(a) == plain(b)
}

plain(rule) := {[c.left, c.operator, c.right, c.unit] | some c in rule.constraint}
