"""The description is what is served: complete, and strict about what it takes."""

from __future__ import annotations

import pytest

from actors.shop.description import MalformedRequest, load_description


def test_every_operation_names_all_the_answers_that_it_may_give() -> None:
    paths = load_description().document["paths"]
    for item in paths.values():
        for method, operation in item.items():
            if method != "parameters":
                assert {"200", "401", "404", "408", "409", "413", "422", "429", "431", "500", "503"} <= set(
                    operation["responses"]
                ), operation["operationId"]
                assert ("400" in operation["responses"]) == ("requestBody" in operation or "parameters" in item)


def test_a_body_is_taken_as_described() -> None:
    body = {"tariff": "basic", "days": 30, "promo": "MAY"}
    assert load_description().operations["quote"].check_body(body) == body


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("quote", {"tariff": "basic"}, "body: 'days' is a required property"),
        ("quote", {"tariff": "basic", "days": "30"}, r"body\.days: does not satisfy type: 'integer'"),
        ("quote", {"tariff": "basic", "days": True}, r"body\.days"),
        ("quote", {"tariff": "basic", "days": 30, "vip": 1}, "allowed are days, promo, tariff"),
        ("quote", [], "body: does not satisfy type: 'object'"),
        ("open_order", {"idempotency_key": "a", "amount": 1, "tariff": "basic", "days": 30}, "body"),
        ("open_order", {"idempotency_key": "a", "amount": 1.5}, "body"),
        ("request_withdrawal", {"idempotency_key": "a", "amount": 1, "destination": "a\nb"}, r"body\.destination"),
    ],
)
def test_what_is_not_described_is_refused_by_place(name: str, body: object, said: str) -> None:
    with pytest.raises(MalformedRequest, match=said):
        load_description().operations[name].check_body(body)


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(MalformedRequest) as caught:
        load_description().operations["quote"].check_body({"tariff": "4111111111111111 SECRET", "days": 30})
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "٣", "9223372036854775808", "1" * 40, "", "x"])
def test_a_customer_is_a_positive_number_of_64_bits(text: str) -> None:
    with pytest.raises(MalformedRequest, match="telegram_id"):
        load_description().operations["find_customer"].check_parameter("telegram_id", text)
    assert (
        load_description().operations["find_customer"].check_parameter("telegram_id", "9223372036854775807")
        == 2**63 - 1
    )
