"""Ask Claude on behalf of a customer, and get the bill with the answer."""

import asyncio

import tallystick


async def main() -> None:
    client = await tallystick.Client.connect()  # finds Temporal; needs no key of any kind
    reply = await client.messages.create(
        customer_id="acme",
        request_id="question-1",  # names this request for ever: repeating it costs nothing
        model="claude-sonnet-5-5",
        max_tokens=300,
        messages=[{"role": "user", "content": "What is a tally stick?"}],
    )
    print(reply.content[0].text)
    print(f"charged ${reply.bill.charge_usd}: {reply.bill.explanation}")


asyncio.run(main())
