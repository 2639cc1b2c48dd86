"""Other runtimes on the same networks: OpenVINO and ONNX Runtime beside this project's, in turns, on a processor."""
