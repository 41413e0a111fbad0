"""GET /api/v1/outcomes: what became of each customer message."""

from dataclasses import asdict

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from shops.api_auth import ApiTokenAuthentication, HasScope

from conversations import outcomes


class SinceSerializer(serializers.Serializer):  # type: ignore[type-arg]
    """The question: since when, and which page."""

    since = serializers.DateTimeField()
    cursor = serializers.UUIDField(required=False, default=None)


class SendingSerializer(serializers.Serializer):  # type: ignore[type-arg]
    """A reply and how far it got."""

    id = serializers.UUIDField()
    origin = serializers.CharField()
    state = serializers.CharField()
    message_ref = serializers.CharField(allow_null=True)


class OutcomeSerializer(serializers.Serializer):  # type: ignore[type-arg]
    """One customer message and what was made of it."""

    message_ref = serializers.CharField()
    stored_at = serializers.DateTimeField()
    turn = serializers.UUIDField(allow_null=True)
    last_in_turn = serializers.BooleanField()
    outcome = serializers.ChoiceField(["answered", "handed_over", "silent", "pending"])
    ticket_status = serializers.CharField()
    deliveries = SendingSerializer(many=True)


class OutcomesSerializer(serializers.Serializer):  # type: ignore[type-arg]
    """A page of outcomes; `next` is the cursor of the following one."""

    until = serializers.DateTimeField()
    next = serializers.UUIDField(allow_null=True)
    messages = OutcomeSerializer(many=True)


class OutcomesView(APIView):
    """Read-only; needs a token with the scope `outcomes.read`."""

    authentication_classes = [ApiTokenAuthentication]
    permission_classes = [HasScope]
    required_scope = "outcomes.read"

    @extend_schema(
        parameters=[
            OpenApiParameter("since", str, required=True, description="ISO 8601 moment"),
            OpenApiParameter("cursor", str, description="`next` of the page before"),
        ],
        responses=OutcomesSerializer,
    )
    def get(self, request: Request) -> Response:
        """Outcomes of the customer messages stored since a moment, oldest first."""
        asked = SinceSerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        until = timezone.now()
        found, cursor = outcomes.since(
            shop=request.auth.shop,
            at=asked.validated_data["since"],
            after=asked.validated_data["cursor"],
        )
        page = {"until": until, "next": cursor, "messages": [asdict(o) for o in found]}
        return Response(OutcomesSerializer(page).data)
