"""No secret in any log, whatever goes wrong. What all other tests have logged is looked through when the stack ends."""

from __future__ import annotations

import requests

from tests.acceptance.system import System, wait_for


def test_no_secret_gets_into_a_log(system: System) -> None:
    url = f"{system.stack.host_url}/queue/teams-outbound/jobs"
    body = {"payload": system.message("x")}
    assert requests.post(url, json=body, headers={"x-admin-key": system.key[:-1]}, timeout=10).status_code == 401
    assert requests.post(url, json=body, params={"x-admin-key": system.key}, timeout=10).status_code == 401
    system.graph.control("POST", "expire-tokens")
    system.fault(body="refused with a token", kind="status", status=401, times=1)
    system.send("refused with a token")
    system.put("teams-outbound", {"payload": system.message("y"), "x-admin-key": system.key})
    wait_for(system.texts, ["refused with a token"])
    wait_for(lambda: "x-admin-key" in str(system.log_lines()), True)
    assert system.secrets_in_logs() == []
