"""Without links each form is a dead end whose name is the reason: nothing in it leads to the network, not even past the VPN."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

import pytest
import yaml

from tests.vpn.subscription.qr_reader import read_qr, without_border
from tests.vpn.subscription.test_qr import of_svg
from tests.vpn.subscription.test_sing_box import check
from vpn.link import parse_link
from vpn.subscription import Format, NoAccess, connects_over_reality, render

CASES = [(why, language) for why in NoAccess for language in ("ru", "en")]


def served(why: NoAccess, form: Format, language: str) -> str:
    """The body as text."""
    return render([], form, language=language, no_access=why).content.decode()


@pytest.mark.parametrize(("why", "language"), CASES)
def test_every_form_is_called_by_the_reason_and_has_no_way_out(why: NoAccess, language: str) -> None:
    said = why.text(language)
    assert 10 <= len(said) <= 64 and "," not in said, "a name for a server; Clash's rules end at a comma"
    plain = served(why, Format.PLAIN, language).strip()
    assert base64.b64decode(served(why, Format.BASE64, language)).decode() == plain
    assert read_qr(without_border(of_svg(served(why, Format.QR, language)))) == plain
    link = parse_link(plain)
    assert (link.host, link.port, link.name) == ("127.0.0.1", 1, said)
    clash = yaml.safe_load(served(why, Format.CLASH, language))
    assert (clash["proxies"], clash["rules"]) == ([], [f"MATCH,{said}"])
    assert clash["proxy-groups"] == [{"name": said, "type": "select", "proxies": ["REJECT"]}]
    box = json.loads(served(why, Format.SING_BOX, language))
    assert box["route"]["rules"] == [{"action": "reject"}] and box["route"]["final"] == said
    assert all(outbound.get("server", "127.0.0.1") == "127.0.0.1" for outbound in box["outbounds"])
    assert {outbound["type"] for outbound in box["outbounds"]} == {"selector", "socks"}
    [config] = json.loads(served(why, Format.XRAY, language))
    assert config["remarks"] == said and [out["protocol"] for out in config["outbounds"]] == ["blackhole"]
    assert html.escape(said) in served(why, Format.HTML, language)


def test_the_reasons_differ_in_each_language() -> None:
    assert len({why.text(language) for why, language in CASES}) == len(CASES)


def test_sing_boxs_checker_takes_the_dead_end(tmp_path: Path) -> None:
    found = check(render([], Format.SING_BOX).content, tmp_path)
    assert (found.returncode, found.stderr) == (0, "")


def test_programs_whose_core_does_not_offer_what_reality_wants_are_known_by_name() -> None:
    for program in ("Shadowrocket/2070 CFNetwork/1490", " NekoBox/Android/1.3.4", "nekoray/3.26"):
        assert not connects_over_reality(program), program
    for program in ("v2rayNG/1.10", "Happ/3.4", "mihomo/1.19", ""):
        assert connects_over_reality(program), program
