"""Send a folder of documents at half the price: `scripts/submit_batch.py acme papers/ --help`.

It is `tallystick batch submit`, so that there is one way to quote, to ask and to submit.
"""

import sys

from tallystick.cli.app import main

if __name__ == "__main__":
    sys.argv[1:1] = ["batch", "submit"]
    main()
