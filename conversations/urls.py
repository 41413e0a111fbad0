"""Addresses of the doors of conversations, below /api/v1/."""

from django.urls import path

from conversations.api.outcomes import OutcomesView

app_name = "conversations"

urlpatterns = [path("outcomes", OutcomesView.as_view(), name="outcomes")]
