"""Pages of the project."""

from django.urls import path

from inbox.views import receive_sms

urlpatterns = [path("carrier/sms", receive_sms)]
