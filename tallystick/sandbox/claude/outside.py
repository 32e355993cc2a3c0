"""Usage that this stand-in never served: somebody else's calls, or a day made out of one sum.

One entry stands for any number of requests at one instant and place, so what a million requests
used is told in a few thousand entries and one call.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tallystick.pricing import TokenCounts
from tallystick.sandbox.claude.keys import WORKSPACE
from tallystick.sandbox.claude.used import Place, Product, Used, geography_shown, undated


class OutsideUsage(BaseModel):
    """Usage at one instant, in seconds since the epoch.

    `tokens` are those of all `requests` together; for prices that depend on a prompt's length each
    request is taken to be as long as their mean. `free` usage is a refusal's before output.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    model: str
    api_key_id: str | None = None
    service_tier: str | None = "standard"
    inference_geo: str | None = "global"
    speed: str | None = "standard"
    product: Product | None = "messages_api"
    requests: Annotated[int, Field(ge=0)] = 1
    tokens: TokenCounts = TokenCounts()
    free: bool = False

    def used(self) -> Used:
        """Return it as the reports are told."""
        place = Place(
            model=undated(self.model),
            api_key_id=self.api_key_id,
            workspace_id=WORKSPACE,
            service_tier=self.service_tier,
            inference_geo=geography_shown(self.inference_geo),
            speed=self.speed,
            product=self.product,
        )
        return Used(self.at, place, self.tokens, self.requests, free=self.free)
