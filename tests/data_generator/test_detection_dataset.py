"""What a data set consists of: lists given directly, lists in files, images, HDF5 files."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from data_generator.annotations import LABEL_COLUMNS
from data_generator.detection_dataset import DetectionDataset
from data_generator.errors import AnnotationError, DatasetError
from data_generator.hdf5_dataset import write_hdf5_dataset
from data_generator.image_reading import ImageReadError
from data_generator.object_detection_2d_geometric_ops import Resize

LABELS = [[[1, 2, 3, 10, 12], [2, 0, 0, 5, 5]], []]


@pytest.fixture
def files(tmp_path):
    """Return the paths of two images: 20 x 30 and 16 x 24 pixels."""
    paths = []
    for name, (height, width) in (("a.png", (20, 30)), ("b.png", (16, 24))):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / name), image)
        paths.append(str(tmp_path / name))
    return paths


def test_nothing_loaded():
    dataset = DetectionDataset()
    assert dataset.dataset_size == dataset.get_dataset_size() == 0
    assert dataset.get_dataset() == (None, None, None, None)
    assert dataset.hdf5_dataset is dataset.images is dataset.class_names is None
    with pytest.raises(DatasetError, match="No data set is loaded: pass filenames or hdf5"):
        dataset.check()
    with pytest.raises(DatasetError, match="No data set is loaded"):
        dataset.create_hdf5_dataset("unused.h5")


def test_lists_are_kept_as_they_are(files):
    lists = [files, LABELS, ["a", "b"], [[True, False], []]]
    dataset = DetectionDataset(
        filenames=lists[0], labels=lists[1], image_ids=lists[2], eval_neutral=lists[3]
    )
    assert all(a is b for a, b in zip(dataset.get_dataset(), lists, strict=True))
    assert dataset.dataset_size == 2
    assert dataset.dataset_indices.tolist() == [0, 1]
    assert dataset.dataset_indices.dtype == np.int32
    assert [dataset.get_image(i).shape for i in range(2)] == [(20, 30, 3), (16, 24, 3)]


def test_filenames_in_a_text_file(tmp_path, files):
    (tmp_path / "names.txt").write_text("a.png\n\n b.png \n")
    names = str(tmp_path / "names.txt")
    assert DetectionDataset(filenames=names, images_dir=str(tmp_path)).filenames == files
    assert DetectionDataset(filenames=names).filenames == ["a.png", "b.png"]
    with pytest.raises(AnnotationError, match="none.txt: cannot read the list of filenames"):
        DetectionDataset(filenames="none.txt")


def test_saved_lists_can_be_loaded(tmp_path, files):
    dataset = DetectionDataset(filenames=files, labels=LABELS, image_ids=[1, 2])
    paths = {name: str(tmp_path / f"{name}.pkl") for name in ("filenames", "labels", "image_ids")}
    dataset.save_dataset(paths["filenames"], paths["labels"], paths["image_ids"])
    loaded = DetectionDataset(filenames_type="pickle", **paths)
    assert loaded.get_dataset() == (files, LABELS, [1, 2], None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filenames": 5}, "filenames must be a list or tuple .*got int"),
        ({"labels": np.zeros((2, 5))}, "labels must be a list or tuple .*got ndarray"),
        ({"image_ids": {1, 2}}, "image_ids must be a list or tuple .*got set"),
        ({"filenames": "a", "filenames_type": "csv"}, "'text' or 'pickle', got 'csv'"),
        ({"labels_output_format": ("class_id", "x", "y", "w", "h")}, "must be a permutation of"),
        ({"labels_output_format": ("angle", *LABEL_COLUMNS)}, "and behind these names of your own"),
        ({"labels_output_format": (*LABEL_COLUMNS, "xmin")}, "and behind these names of your own"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DetectionDataset(**arguments)


def test_a_pickle_of_something_else(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="labels must be a list or tuple .*got dict"):
        DetectionDataset(labels=str(tmp_path / "a.pkl"))


def test_label_columns():
    dataset = DetectionDataset(labels_output_format=["xmin", "ymin", "xmax", "ymax", "class_id"])
    assert dataset.labels_format == {"class_id": 4, "xmin": 0, "ymin": 1, "xmax": 2, "ymax": 3}


def test_label_columns_of_ones_own(files, tmp_path):
    labels = [[[1, 2, 3, 9, 12, 0.5]], []]
    dataset = DetectionDataset(
        filenames=files, labels=labels, labels_output_format=(*LABEL_COLUMNS, "angle")
    )
    dataset.create_hdf5_dataset(tmp_path / "a.h5", resize=(10, 15), verbose=False)
    np.testing.assert_array_equal(dataset.labels[0], [[1, 1, 1.5, 4.5, 6, 0.5]])
    assert dataset.labels[1].shape == (0, 6)
    assert "1 boxes" in str(dataset.describe())
    with pytest.raises(DatasetError, match="labels must be rows of 5 numbers, got an array"):
        DetectionDataset(filenames=files, labels=labels).describe()


def test_images_in_memory_are_not_handed_out(files, capsys):
    dataset = DetectionDataset(True, filenames=files, verbose=False)
    assert capsys.readouterr() == ("", "")
    assert [image.shape for image in dataset.images] == [(20, 30, 3), (16, 24, 3)]
    before = dataset.images[0].copy()
    dataset.get_image(0)[:] = 0
    np.testing.assert_array_equal(dataset.images[0], before)
    dataset.dataset_indices = np.array([1, 0], np.int32)
    assert dataset.get_image(0).shape == (16, 24, 3)


@pytest.mark.parametrize(("channels", "last"), [(3, 3), (1, 1), (None, 3)])
def test_image_channels(files, channels, last):
    assert DetectionDataset(filenames=files, image_channels=channels).get_image(0).shape[2] == last


def test_missing_images_are_named(files):
    dataset = DetectionDataset(filenames=[*files, "none.jpg"])
    with pytest.raises(ImageReadError, match="none.jpg"):
        dataset.get_image(2)


@pytest.mark.parametrize("name", ["labels", "image_ids", "eval_neutral"])
def test_lists_of_different_length(files, name):
    dataset = DetectionDataset(filenames=files, **{name: [[]]})
    with pytest.raises(DatasetError, match=f"{name} has 1 entries, but the data set has 2 images"):
        dataset.check()


def test_entries_have_names(tmp_path, files):
    dataset = DetectionDataset(filenames=files, image_ids=["x", 7])
    assert dataset.entry_name(1) == files[1]
    dataset.filenames = None
    assert dataset.entry_name(1) == "image 7"
    dataset.image_ids = None
    assert dataset.entry_name(1) == "image number 1"


def test_hdf5_takes_over_and_is_read_back(tmp_path, files):
    dataset = DetectionDataset(filenames=files, labels=LABELS, image_ids=[5, 6])
    images = [dataset.get_image(i) for i in range(2)]
    path = str(tmp_path / "a.h5")
    dataset.create_hdf5_dataset(path, verbose=False)
    assert dataset.hdf5_dataset is not None
    assert dataset.get_dataset() == (files, LABELS, [5, 6], None)

    loaded = DetectionDataset(hdf5_dataset_path=path)
    assert loaded.filenames is loaded.eval_neutral is loaded.images is None
    assert loaded.image_ids == [5, 6]
    assert loaded.dataset_size == 2
    in_memory = DetectionDataset(True, hdf5_dataset_path=path, verbose=False)
    for source in (dataset, loaded, in_memory):
        for i, image in enumerate(images):
            np.testing.assert_array_equal(source.get_image(i), image)
    loaded.create_hdf5_dataset(path, verbose=False)  # over the file that it is read from
    np.testing.assert_array_equal(loaded.get_image(1), images[1])


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("columns", [(0, 1, 2, 3, 4), (1, 2, 3, 4, 0)])
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_resized_cache_equals_resizing_later(tmp_path, files, in_memory, columns, dtype):
    labels = [np.array(boxes, dtype).reshape(-1, 5)[:, columns] for boxes in LABELS]
    names = np.array(["class_id", "xmin", "ymin", "xmax", "ymax"])[list(columns)].tolist()
    dataset = DetectionDataset(
        in_memory, filenames=files, labels=labels, labels_output_format=names, verbose=False
    )
    resize = Resize(10, 50, labels_format=dataset.labels_format)
    expected = [resize(dataset.get_image(i), labels[i]) for i in range(2)]

    dataset.create_hdf5_dataset(tmp_path / "a.h5", resize=(10, 50), verbose=False)
    assert not dataset.hdf5_dataset.attrs["variable_image_size"]
    loaded = DetectionDataset(hdf5_dataset_path=tmp_path / "a.h5", labels_output_format=names)
    for source in (dataset, loaded):
        for i, (image, boxes) in enumerate(expected):
            np.testing.assert_array_equal(source.get_image(i), image)
            np.testing.assert_allclose(source.labels[i], boxes, rtol=1e-6)
            assert source.labels[i].shape[1] == 5
    assert labels[0][0, columns.index(3)] == 10, "the labels handed in must not change"


@pytest.mark.parametrize("resize", [True, (300,), (1, 2, 3)])
def test_wrong_size(tmp_path, files, resize):
    dataset = DetectionDataset(filenames=files)
    with pytest.raises(ValueError, match=r"resize must be False or \(height, width\), got"):
        dataset.create_hdf5_dataset(tmp_path / "a.h5", resize=resize)
    assert not (tmp_path / "a.h5").exists()


class TestSubset:
    def dataset(self, **arguments):
        rng = np.random.default_rng(0)
        dataset = DetectionDataset(
            filenames=[f"{i}.jpg" for i in range(4)],
            labels=[[[1, 0, 0, 5, i + 1]] for i in range(4)],
            image_ids=list("abcd"),
            **arguments,
        )
        dataset.images = [rng.integers(0, 256, (6, 7, 3), dtype=np.uint8) for _ in range(4)]
        return dataset

    def test_entries_follow_in_the_order_asked_for(self):
        dataset = self.dataset()
        part = dataset.subset([3, 1, 1])
        assert type(part) is DetectionDataset
        assert part.get_dataset_size() == 3
        assert part.filenames == ["3.jpg", "1.jpg", "1.jpg"]
        assert part.image_ids == ["d", "b", "b"]
        assert [labels[0][4] for labels in part.labels] == [4, 2, 2]
        assert part.eval_neutral is None
        for i, source in enumerate([3, 1, 1]):
            np.testing.assert_array_equal(part.get_image(i), dataset.images[source])
        part.check()

    def test_a_subset_of_a_subset(self):
        dataset = self.dataset()
        part = dataset.subset([3, 2, 0]).subset([2, 0])
        assert part.image_ids == ["a", "d"]
        np.testing.assert_array_equal(part.get_image(1), dataset.images[3])

    @pytest.mark.parametrize("resize", [False, (6, 7)])
    def test_images_in_memory_go_to_an_hdf5_file(self, tmp_path, resize):
        dataset = self.dataset()
        part = dataset.subset([3, 1])
        part.create_hdf5_dataset(tmp_path / "a.h5", resize=resize, verbose=False)
        for source in (part, DetectionDataset(hdf5_dataset_path=tmp_path / "a.h5")):
            for i, original in enumerate([3, 1]):
                np.testing.assert_array_equal(source.get_image(i), dataset.images[original])

    def test_the_whole_stays_as_it_was(self):
        dataset = self.dataset()
        dataset.subset([0]).skipped_images["x"] = "y"
        assert dataset.get_dataset_size() == 4
        assert dataset.skipped_images == {}
        assert dataset.image_ids == list("abcd")


class TestSplit:
    def test_parts_share_what_belongs_to_the_whole(self):
        dataset = TestSubset().dataset(
            labels_output_format=["xmin", "ymin", "xmax", "ymax", "class_id"]
        )
        dataset.labels = [[[0, 0, 5, 5, 1]]] * 4
        dataset.class_names = dataset.classes = ["background", "dog"]
        train, test = dataset.split((0.75, 0.25), seed=0, stratify=True)
        assert (train.dataset_size, test.dataset_size) == (3, 1)
        assert sorted(train.image_ids + test.image_ids) == list("abcd")
        for part in (train, test):
            assert type(part) is DetectionDataset
            assert part.classes == part.class_names == ["background", "dog"]
            assert part.labels_format == dataset.labels_format
            for i, image_id in enumerate(part.image_ids):
                source = dataset.images[dataset.image_ids.index(image_id)]
                np.testing.assert_array_equal(part.get_image(i), source)

    def test_parts_of_an_hdf5_file(self, tmp_path, files):
        dataset = DetectionDataset(filenames=files, labels=LABELS, image_ids=["a", "b"])
        images = {name: dataset.get_image(i) for i, name in enumerate("ab")}
        dataset.create_hdf5_dataset(tmp_path / "a.h5", verbose=False)
        parts = DetectionDataset(hdf5_dataset_path=tmp_path / "a.h5").split((0.5, 0.5), seed=1)
        # What one part does with its file must not pull it from under the other's feet.
        parts[0].create_hdf5_dataset(tmp_path / "b.h5", verbose=False)
        for part in (*parts, *DetectionDataset(hdf5_dataset_path=tmp_path / "b.h5").split((1,))):
            assert part.dataset_size == 1
            np.testing.assert_array_equal(part.get_image(0), images[part.image_ids[0]])
            assert part.get_image_size(0) == part.get_image(0).shape[:2]

    def test_nothing_to_split(self, files):
        with pytest.raises(DatasetError, match="No data set is loaded"):
            DetectionDataset().split()
        with pytest.raises(DatasetError, match="stratify=True needs labels"):
            DetectionDataset(filenames=files).split(stratify=True)


@pytest.mark.parametrize("source", ["files", "memory", "hdf5"])
def test_image_sizes(tmp_path, files, source):
    dataset = DetectionDataset(source == "memory", filenames=files, verbose=False)
    if source == "hdf5":
        dataset.create_hdf5_dataset(tmp_path / "a.h5", verbose=False)
    assert [dataset.get_image_size(i) for i in range(2)] == [(20, 30), (16, 24)]
    assert dataset.subset([1]).get_image_size(0) == (16, 24)
    assert dataset.describe().image_sizes == {(20, 30): 1, (16, 24): 1}


def test_a_pickle_opens_the_hdf5_file_again(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    images = [np.full((4, 5, 3), i, np.uint8) for i in range(3)]
    entries = ((image, np.array([[1, 0, 0, 2, 2]])) for image in images)
    write_hdf5_dataset(path, entries, 3)
    monkeypatch.chdir(tmp_path)
    dataset = DetectionDataset(hdf5_dataset_path="a.h5", verbose=False)
    content = pickle.dumps(dataset.subset([2, 0]))
    monkeypatch.chdir("/")
    loaded = pickle.loads(content)
    assert [loaded.get_image(i)[0, 0, 0] for i in range(2)] == [2, 0]
    assert loaded.hdf5_dataset is not dataset.hdf5_dataset
    loaded.hdf5_dataset.close()
    assert dataset.get_image(1)[0, 0, 0] == 1

    dataset.hdf5_dataset.close()
    dataset.hdf5_dataset = None
    assert pickle.loads(pickle.dumps(dataset)).hdf5_dataset is None  # though its path is known
