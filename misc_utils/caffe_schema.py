"""The part of Caffe's file format that holds weights, as protobuf messages.

A `.caffemodel` is one protobuf message, `NetParameter`, whose schema is Caffe's `caffe.proto`. Only
the fields that are needed here are declared; protobuf skips all others by itself. Two kinds of
fields are declared as plain bytes, which protobuf stores in the same way:

- Messages in lists (layers, blobs). They are opened one at a time: two bytes of a forged file can
  declare an empty message that takes a hundred bytes of memory.
- Packed numbers. NumPy reads them at once; protobuf would make a Python object of each.
"""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

_PACKAGE = "ssd_keras.caffe"

# {message: {field: (number, type, whether it is a list)}}; numbers as in caffe.proto, those above
# 200 as in the branch `ssd` of Caffe.
_MESSAGES = {
    "NetParameter": {
        "layers": (2, Field.TYPE_BYTES, True),  # V1LayerParameter, files of 2014
        "layer": (100, Field.TYPE_BYTES, True),  # LayerParameter
    },
    "LayerParameter": {
        "name": (1, Field.TYPE_BYTES, False),
        "type": (2, Field.TYPE_BYTES, False),
        "blobs": (7, Field.TYPE_BYTES, True),
        "prior_box_param": (203, Field.TYPE_BYTES, False),
    },
    "V1LayerParameter": {
        "name": (4, Field.TYPE_BYTES, False),
        "blobs": (6, Field.TYPE_BYTES, True),
    },
    "BlobProto": {
        # The shape of old files: always four numbers.
        "num": (1, Field.TYPE_INT32, False),
        "channels": (2, Field.TYPE_INT32, False),
        "height": (3, Field.TYPE_INT32, False),
        "width": (4, Field.TYPE_INT32, False),
        "data": (5, Field.TYPE_BYTES, True),  # packed float
        "shape": (7, Field.TYPE_BYTES, False),  # BlobShape
        "double_data": (8, Field.TYPE_BYTES, True),  # packed double
    },
    "BlobShape": {
        "dim": (1, Field.TYPE_INT64, True),
    },
    "PriorBoxParameter": {
        "min_size": (1, Field.TYPE_FLOAT, True),
        "max_size": (2, Field.TYPE_FLOAT, True),
        "aspect_ratio": (3, Field.TYPE_FLOAT, True),
        "flip": (4, Field.TYPE_BOOL, False),
        "clip": (5, Field.TYPE_BOOL, False),
        "variance": (6, Field.TYPE_FLOAT, True),
        "step": (10, Field.TYPE_FLOAT, False),
        "offset": (13, Field.TYPE_FLOAT, False),
    },
}


def _message_classes() -> dict[str, type]:
    """Build the classes from the table, without a compiler for `.proto` files."""
    file = descriptor_pb2.FileDescriptorProto(
        name="ssd_keras/caffe_weights.proto", package=_PACKAGE, syntax="proto2"
    )
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, (number, kind, is_list) in fields.items():
            label = Field.LABEL_REPEATED if is_list else Field.LABEL_OPTIONAL
            declared.field.add(name=name, number=number, type=kind, label=label)
    # A pool of its own: an installed Caffe or OpenCV has its own idea of these messages.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{message}")
        )
        for message in _MESSAGES
    }


_CLASSES = _message_classes()

NetParameter = _CLASSES["NetParameter"]
LayerParameter = _CLASSES["LayerParameter"]
V1LayerParameter = _CLASSES["V1LayerParameter"]
BlobProto = _CLASSES["BlobProto"]
BlobShape = _CLASSES["BlobShape"]
PriorBoxParameter = _CLASSES["PriorBoxParameter"]
