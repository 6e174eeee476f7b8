"""One sign-in, many processes: they redeem at once, lose a save to each other, and die between redeeming and saving."""

from __future__ import annotations

import signal
import subprocess

from local.process import wait_until
from shared import bootstrap
from tests.integration.identity.conftest import SERVICE, Product

REDEEM = f"""
import sys
from shared import bootstrap
tokens = bootstrap.service_account_tokens("{SERVICE}")
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    print(tokens.token(refused=tokens.token()), flush=True)
"""
DIE_BEFORE_THE_SAVE = f"""
import os, signal
from shared import bootstrap
from shared.postgres.token_cache import PostgresTokenCache
PostgresTokenCache.save = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
bootstrap.service_account_tokens("{SERVICE}").token(refused="")
"""
DIE_AFTER_THE_SAVE = f"""
import os, signal
from shared import bootstrap
from shared.postgres.token_cache import PostgresTokenCache
save = PostgresTokenCache.save
PostgresTokenCache.save = lambda *given: (save(*given), os.kill(os.getpid(), signal.SIGKILL))
bootstrap.service_account_tokens("{SERVICE}").token(refused="")
"""


def version(product: Product) -> int:
    return int(product.value("select version from queue.token_cache where account = %s", SERVICE))


def test_two_processes_that_redeem_at_the_same_time_both_go_on(product: Product) -> None:
    product.sign_in()
    before = version(product)
    processes = [product.spawn(REDEEM) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    tokens = [line for out, _ in outputs for line in out.split()]
    assert len(set(tokens)) == 10
    # Of saves at the same moment one is left out; whichever is kept is good.
    assert before + 5 <= version(product) <= before + 10
    assert bootstrap.service_account_tokens(SERVICE).token(refused="")


def died(process: subprocess.Popen[str]) -> None:
    assert wait_until(lambda: process.poll() is not None, 30)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_process_that_dies_between_redeeming_and_saving_costs_nothing(product: Product) -> None:
    product.sign_in()
    before, asked = version(product), product.token_requests()
    died(product.spawn(DIE_BEFORE_THE_SAVE))
    assert product.token_requests() == asked + 1
    assert version(product) == before
    assert bootstrap.service_account_tokens(SERVICE).token(refused="")
    assert version(product) == before + 1


def test_a_process_that_dies_after_saving_leaves_its_sign_in_to_the_others(product: Product) -> None:
    product.sign_in()
    before = version(product)
    died(product.spawn(DIE_AFTER_THE_SAVE))
    assert version(product) == before + 1
    assert bootstrap.service_account_tokens(SERVICE).token(refused="")
