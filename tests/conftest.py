import os

import torch

torch.set_num_threads(1)  # tests run side by side
os.environ["ARCHSPEC_CACHE"] = "off"  # no test depends on what is on disk, but those of what is
