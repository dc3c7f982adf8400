"""Hook that the carrier calls for each SMS."""

from __future__ import annotations

from django import forms
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from inbox.models import Customer, IncomingMessage, OwedPostback
from postbacks import InvalidEvent


class SmsForm(forms.Form):
    """Fields that the carrier sends."""

    id = forms.CharField(max_length=100)
    sender = forms.CharField(max_length=15)
    short_code = forms.CharField(max_length=8)
    text = forms.CharField(required=False, strip=False)
    received_at = forms.DateTimeField()


@csrf_exempt
@require_POST
def receive_sms(request: HttpRequest) -> JsonResponse:
    """Store a message, and send its postback once it is committed.

    The carrier hears 200 as soon as the message is stored. A postback that could not be sent is no concern of the
    carrier's: it is owed, and the sweep sends it.
    """
    form = SmsForm(request.POST)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    sms = form.cleaned_data
    customer = Customer.objects.filter(short_code=sms["short_code"]).first()
    if customer is None:
        return JsonResponse({"errors": {"short_code": ["No customer has it."]}}, status=404)
    try:
        with transaction.atomic():
            message, is_new = IncomingMessage.objects.get_or_create(
                carrier_id=sms["id"],
                defaults={
                    "customer": customer,
                    "sender": sms["sender"],
                    "text": sms["text"],
                    "received_at": sms["received_at"],
                },
            )
            if is_new:  # the carrier repeats what it has not heard 200 for
                OwedPostback.owe(customer.name, message.event())
    except InvalidEvent as error:  # the message is not stored either
        return JsonResponse({"errors": dict(error.problems)}, status=422)
    return JsonResponse({"id": message.carrier_id})
