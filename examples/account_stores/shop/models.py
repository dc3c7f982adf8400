"""Tables of a Django application, as it has always had them."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Customer(models.Model):
    """A customer, and where their postbacks go."""

    account: models.CharField[str, str] = models.CharField(max_length=128, primary_key=True)
    postback_url: models.CharField[str, str] = models.CharField(max_length=2000, blank=True)
    mo_url: models.CharField[str, str] = models.CharField(max_length=2000, blank=True)
    origins_off = models.JSONField(default=list, blank=True)
    signing_secret: models.CharField[str, str] = models.CharField(max_length=200, blank=True)
    rate: models.CharField[str, str] = models.CharField(max_length=20, blank=True)

    objects: ClassVar[models.Manager[Customer]] = models.Manager()

    def __str__(self) -> str:
        return self.account


class Message(models.Model):
    """A message that came for a customer."""

    account: models.CharField[str, str] = models.CharField(max_length=128)
    text: models.TextField[str, str] = models.TextField()

    def __str__(self) -> str:
        return f"{self.account}: {self.text}"
