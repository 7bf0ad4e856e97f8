"""Runs in the test server: serves the model.onnx in its folder through Triton's Python backend.

The server from PyPI has no ONNX Runtime backend. Names are taken from the model's configuration. Its parameter `delay`
is how many seconds longer each request takes.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import, or it reports to its maker
import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = str(Path(args["model_repository"]) / args["model_version"] / "model.onnx")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = config["input"][0]["name"]
        self.outputs = [output["name"] for output in config["output"]]
        self.batches = config.get("max_batch_size", 0) > 0
        self.delay = float(config.get("parameters", {}).get("delay", {}).get("string_value", "0"))

    def run(self, array):
        time.sleep(self.delay)
        return self.session.run(self.outputs, {self.input: array})

    def execute(self, requests):
        arrays = [pb.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        if self.batches:
            joined = self.run(np.concatenate(arrays))
            ends = np.cumsum([len(array) for array in arrays])
            parts = [
                [output[end - len(array) : end] for output in joined] for array, end in zip(arrays, ends, strict=True)
            ]
        else:
            parts = [self.run(array) for array in arrays]
        return [
            pb.InferenceResponse(
                [pb.Tensor(name, np.ascontiguousarray(value)) for name, value in zip(self.outputs, part, strict=True)]
            )
            for part in parts
        ]
