-- How each user wants to be notified: channels in order, and for the webhook channel the endpoint (a name in the
-- settings). The fleet application writes the rows; a user without one gets the default of the settings.

create table queue.notification_routes (
    user_id text primary key,
    channels text[] not null,
    endpoint text,
    updated_at timestamptz not null default clock_timestamp(),
    constraint notification_routes_channels check (
        cardinality(channels) between 1 and 3
        and array_position(channels, null) is null
        and channels <@ array['teams-activity', 'push', 'webhook']),
    constraint notification_routes_endpoint check (not ('webhook' = any (channels)) or endpoint is not null)
);
