"""Rules of third-party CRDs: what Kubernetes' CEL can do is done, or the CRD is refused by name."""

import pytest

from datatunerx.server import cel


def refusals(rule, new, old=cel.ABSENT, schema=None):
    node = cel.compile_rules({**(schema or {}), "x-kubernetes-validations": [rule]})
    return [(cause.reason, cause.field, cause.message) for cause in cel.check(node, new, old, "spec")]


@pytest.mark.parametrize(
    "rule",
    [
        "self.numbers.isSorted() && !['b', 'a'].isSorted() && [].isSorted()",
        "self.numbers.sum() == 6 && [1.5, 2.5].sum() == 4.0 && [].sum() == 0",
        "self.numbers.min() == 1 && self.numbers.max() == 3 && ['b', 'a'].min() == 'a'",
        "self.numbers.indexOf(2) == 1 && [1, 2, 1].lastIndexOf(1) == 2 && self.numbers.indexOf(9) == -1",
        "'abc'.indexOf('c') == 2 && 'a,b'.split(',').size() == 2",
        "'%s has %d'.format(['x', 3]) == 'x has 3'",
        "isQuantity(self.memory) && !isQuantity('1 GiB') && !isQuantity('')",
        "quantity(self.memory).isGreaterThan(quantity('1G')) && quantity('50k') == quantity('50000')",
        "quantity('1Gi').add(quantity('1Mi')).compareTo(quantity('1025Mi')) == 0",
        "quantity('200M').sub(1).isLessThan(quantity('200M')) && quantity('-1').sign() == -1",
        "quantity('50k').isInteger() && !quantity('1m').isInteger() && quantity('2k').asInteger() == 2000",
        "quantity('1500m').asApproximateFloat() == 1.5",
        "isURL(self.url) && !isURL('no url') && !isURL('http://h:port/')",
        "url(self.url).getHost() == 'h.example:8443' && url(self.url).getHostname() == 'h.example'",
        "url(self.url).getScheme() == 'https' && url(self.url).getPort() == '8443'",
        "url(self.url).getEscapedPath() == '/a%20b' && url(self.url).getQuery()['k'] == ['1', '2']",
        "isIP('10.0.0.1') && !isIP('10.0.0') && ip('::1').family() == 6 && ip('127.0.0.1').isLoopback()",
        "self.?absent.orValue(3) == 3 && self.?memory.hasValue()",
        "duration('1h') > duration('30m') && timestamp('2026-01-01T00:00:00Z').getFullYear() == 2026",
    ],
)
def test_a_rule_may_use_what_kubernetes_adds_to_cel(rule):
    new = {"numbers": [1, 2, 3], "memory": "2Gi", "url": "https://h.example:8443/a%20b?k=1&k=2"}
    assert refusals({"rule": rule}, new) == []
    assert len(refusals({"rule": f"!({rule})"}, new)) == 1


@pytest.mark.parametrize("name", ["find('a')", "findAll('a')", "sets()", "family(1)", "isCIDR()"])
def test_a_function_that_is_not_there_is_named_when_the_crd_is_loaded(name):
    with pytest.raises(cel.RuleError, match=name.split("(")[0]):
        cel.compile_rules({"x-kubernetes-validations": [{"rule": f"self.a.{name} == 'a'"}]})


def test_what_cannot_be_computed_is_a_refusal_and_not_a_pass():
    for rule in ("[].min() == 1", "quantity(self) == quantity('1')", "url(self).getHost() == ''"):
        ((reason, _, message),) = refusals({"rule": rule}, "no number")
        assert reason == "FieldValueInvalid" and "could not be evaluated" in message


def test_an_optional_old_value_is_absent_on_create_and_there_on_update():
    rule = {"rule": "oldSelf.hasValue() ? self >= oldSelf.value() : self == 1", "optionalOldSelf": True}
    assert refusals(rule, 1) == [] and len(refusals(rule, 2)) == 1
    assert refusals(rule, 3, old=2) == [] and len(refusals(rule, 1, old=2)) == 1
    told = {**rule, "messageExpression": "'was ' + string(oldSelf.orValue(0))"}
    assert refusals(told, 1, old=2)[0][2].endswith("was 2")
    with pytest.raises(cel.RuleError):
        cel.compile_rules({"x-kubernetes-validations": [{"rule": "true) || (true", "optionalOldSelf": True}]})


def test_a_transition_rule_runs_on_an_update_only():
    rule = {"rule": "self == oldSelf", "message": "immutable"}
    assert refusals(rule, 1) == [] and refusals(rule, 1, old=1) == []
    assert refusals(rule, 1, old=2)[0][2].endswith("immutable")


def test_what_a_refusal_says_is_as_the_rule_wants_it():
    rule = {
        "rule": "self.a > 1",
        "message": "plain",
        "messageExpression": "'a is ' + string(self.a)",
        "reason": "FieldValueForbidden",
        "fieldPath": ".a",
    }
    assert refusals(rule, {"a": 1}) == [("FieldValueForbidden", "spec.a", "Forbidden: a is 1")]
    # An expression that fails or says nothing falls back to the message.
    for expression in ("self.nothing", "''", "1 / 0 == 1 ? 'a' : 'b'"):
        found = refusals({**rule, "messageExpression": expression}, {"a": 1})
        assert found == [("FieldValueForbidden", "spec.a", "Forbidden: plain")]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"rule": "self.a >"}, "rule"),
        ({"rule": "true", "messageExpression": "nonsense("}, "messageExpression"),
        ({"rule": "true", "reason": "Because"}, "reason"),
        ({"rule": "true", "fieldPath": "a"}, "fieldPath"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_by_its_field(wrong, named):
    with pytest.raises(cel.RuleError, match=rf"\[0\]\.{named}"):
        cel.compile_rules({"x-kubernetes-validations": [wrong]})
