"""A test that is not about limits is not slowed by them; whoever tests them sets them."""

LIFT = (
    "update queue.queue_settings set rate_limit = null, rate_seconds = null, concurrency = null, job_cost = 1,"
    " key_rate_limit = null, key_rate_seconds = null, key_concurrency = null, ageing_seconds = null,"
    " limits_changed_at = clock_timestamp()"
)
