"""The function app: everything that Azure's host runs is registered here."""

import azure.functions as func

from functions import admin, dashboard, health, poison, queues, timers, webhooks

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
app.register_functions(webhooks.bp)
app.register_functions(queues.bp)
app.register_functions(poison.bp)
app.register_functions(timers.bp)
app.register_functions(admin.bp)
app.register_functions(dashboard.bp)
app.register_functions(health.bp)
