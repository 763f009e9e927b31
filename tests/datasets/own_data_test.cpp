// Data of one's own: what the readers make of small files, and what they say of bad ones.
#include "datasets/data_kind.h"

#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>
#include <jpeglib.h>

#include "datasets/data_loader.h"
#include "datasets/image.h"
#include "datasets/jpeg.h"
#include "datasets/npy.h"
#include "tests/datasets/fixtures.h"
#include "tests/expect_error.h"

namespace espalier {
namespace {

using testing_support::expect_contains;
using testing_support::message_of;

/// The bytes of an array as NumPy saves it.
template <class T>
std::string npy(const std::string& type, const std::string& shape, const std::vector<T>& values) {
  std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }";
  header += std::string(64 - (10 + header.size() + 1) % 64, ' ') + "\n";
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 255);
  bytes += static_cast<char>(header.size() >> 8);
  bytes += header;
  return bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

void write_npz(const std::string& path, const std::vector<std::pair<std::string, std::string>>& members) {
  archive* zip = archive_write_new();
  archive_write_set_format_zip(zip);
  ASSERT_EQ(archive_write_open_filename(zip, path.c_str()), ARCHIVE_OK);
  for (const auto& [name, bytes] : members) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name.c_str());
    archive_entry_set_size(entry, static_cast<la_int64_t>(bytes.size()));
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    ASSERT_EQ(archive_write_header(zip, entry), ARCHIVE_OK);
    ASSERT_EQ(archive_write_data(zip, bytes.data(), bytes.size()), static_cast<la_ssize_t>(bytes.size()));
    archive_entry_free(entry);
  }
  archive_write_free(zip);
}

/// Grey pixels as a JPEG.
void write_jpeg(const std::string& path, int height, int width, unsigned char value) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "wb"), std::fclose);
  jpeg_error_mgr errors;
  jpeg_compress_struct encoder{};
  encoder.err = jpeg_std_error(&errors);
  jpeg_create_compress(&encoder);
  jpeg_stdio_dest(&encoder, file.get());
  encoder.image_height = static_cast<JDIMENSION>(height);
  encoder.image_width = static_cast<JDIMENSION>(width);
  encoder.input_components = 1;
  encoder.in_color_space = JCS_GRAYSCALE;
  jpeg_set_defaults(&encoder);
  jpeg_start_compress(&encoder, TRUE);
  std::vector<unsigned char> row(static_cast<size_t>(width), value);
  JSAMPROW at = row.data();
  while (encoder.next_scanline < encoder.image_height) jpeg_write_scanlines(&encoder, &at, 1);
  jpeg_finish_compress(&encoder);
  jpeg_destroy_compress(&encoder);
}

class OwnData : public FolderTest {};

TEST_F(OwnData, NumPyTypesBecomeFloatsPixelsAndWholeNumbers) {
  const Tensor floats = read_npy(write("a.npy", npy<float>("<f4", "(2, 3)", {1, 2, 3, 4, 5, 6.5F})));
  EXPECT_EQ(floats.shape(), Shape({2, 3}));
  EXPECT_EQ(floats.to_vector<float>(), std::vector<float>({1, 2, 3, 4, 5, 6.5F}));
  const Tensor doubles = read_npy(write("b.npy", npy<double>("<f8", "(2,)", {0.25, -8})));
  EXPECT_EQ(doubles.dtype(), DType::f32);
  EXPECT_EQ(doubles.to_vector<float>(), std::vector<float>({0.25F, -8}));
  EXPECT_EQ(read_npy(write("c.npy", npy<uint8_t>("|u1", "(1, 2)", {0, 255}))).dtype(), DType::u8);
  const Tensor whole = read_npy(write("d.npy", npy<int16_t>("<i2", "(3,)", {-1, 300, 7})));
  EXPECT_EQ(whole.dtype(), DType::i64);
  EXPECT_EQ(whole.to_vector<int64_t>(), std::vector<int64_t>({-1, 300, 7}));
}

TEST_F(OwnData, BadArraysAreErrorsThatSayWhere) {
  const std::string good = npy<float>("<f4", "(2, 3)", {1, 2, 3, 4, 5, 6});
  const auto message = [&](const std::string& bytes) {
    return message_of<FileError>([&] { read_npy(write("bad.npy", bytes)); });
  };
  expect_contains(message("<html>not found</html>"), "offset 0: expected an array as NumPy saves it");
  expect_contains(message(good.substr(0, good.size() - 1)),
                  "the header promises (2, 3) numbers of 4 bytes, the file can hold at most 23 bytes");
  expect_contains(message(good + "x"), "expected the end of the file");
  expect_contains(message(npy<float>("<f4", "(99999999999, 99999999999)", {1})), "the file can hold at most 4 bytes");
  expect_contains(message(npy<float>(">f4", "(1,)", {1})), "found '>f4'");
  expect_contains(message(npy<float>("<f4", "(0,)", {})), "expected sizes of at least 1");
  expect_contains(message(npy<float>("|O", "(1,)", {1})), "found '|O'");
  expect_contains(message(npy<float>("<f4", "(1,), 'x': eval('1')", {1})), "found {'descr'");
  std::string columns = good;
  columns.replace(columns.find("False"), 5, "True ");
  expect_contains(message(columns), "fortran_order");
  for (size_t cut = 0; cut < good.size(); ++cut)
    EXPECT_THROW(read_npy(write("cut.npy", good.substr(0, cut))), FileError);
}

TEST_F(OwnData, SequencesOfAnNpzFile) {
  // Three sequences of at most 2 steps and 1 feature; the step past a length is no part of the statistics.
  write_npz(path("s.npz"), {{"x_train.npy", npy<float>("<f4", "(3, 2, 1)", {1, 99, 2, 4, 5, 8})},
                            {"y_train.npy", npy<int64_t>("<i8", "(3,)", {0, 2, 1})},
                            {"lengths_train.npy", npy<int64_t>("<i8", "(3,)", {1, 2, 2})},
                            {"x_test.npy", npy<float>("<f4", "(1, 2, 1)", {4, 4})},
                            {"y_test.npy", npy<int64_t>("<i8", "(1,)", {3})},
                            {"lengths_test.npy", npy<int64_t>("<i8", "(1,)", {2})}});
  const Splits data = load_dataset("npz:" + path("s.npz"));
  EXPECT_EQ(data.train.name, "npz:" + path("s.npz"));
  EXPECT_EQ(data.train.input_shape(), Shape({2, 1}));
  EXPECT_EQ(data.train.num_classes(), 4);  // the largest of both parts
  EXPECT_TRUE(data.train.is_classification());
  ASSERT_EQ(data.train.mean.size(), 1U);
  EXPECT_FLOAT_EQ(data.train.mean[0], 4);                  // of 1, 2, 4, 5, 8
  EXPECT_FLOAT_EQ(data.train.stddev[0], std::sqrt(6.0F));  // (9 + 4 + 0 + 1 + 16) / 5
  EXPECT_EQ(data.test.mean, data.train.mean);

  const DataLoader loader(data.train, {.batch_size = 3, .prefetch = 0});
  BatchStream stream = loader.batches();
  const Batch batch = *stream.next();
  EXPECT_EQ(batch.images.shape(), Shape({3, 2, 1}));
  EXPECT_FLOAT_EQ(batch.images.to_vector<float>()[3], 0);
  ASSERT_EQ(batch.inputs.size(), 1U);
  EXPECT_EQ(batch.inputs[0].first, "lengths");
  EXPECT_EQ(batch.inputs[0].second.to_vector<int64_t>(), std::vector<int64_t>({1, 2, 2}));
  const Batch last = batch.slice(2, 3);
  EXPECT_EQ(last.labels.to_vector<int64_t>(), std::vector<int64_t>({1}));
  EXPECT_EQ(last.inputs[0].second.to_vector<int64_t>(), std::vector<int64_t>({2}));
}

TEST_F(OwnData, ArraysThatDoNotFitAreErrors) {
  const std::string x = npy<float>("<f4", "(2, 2, 1)", {1, 2, 3, 4}), y = npy<int64_t>("<i8", "(2,)", {0, 1});
  const auto message = [&](const std::vector<std::pair<std::string, std::string>>& members,
                           const std::string& options = "") {
    write_npz(path("bad.npz"), members);
    return message_of<FileError>([&] { load_dataset("npz:" + path("bad.npz") + options); });
  };
  expect_contains(message({{"x.npy", x}, {"y.npy", npy<int64_t>("<i8", "(3,)", {0, 1, 0})}}), "expected 2 rows of 'y'");
  expect_contains(message({{"y.npy", y}}), "expected an array 'x' of inputs");
  expect_contains(message({{"x.npy", x}, {"y.npy", y}, {"length.npy", y}}), "did you mean 'lengths'");
  expect_contains(message({{"x.npy", x}, {"y.npy", y}, {"lengths.npy", npy<int64_t>("<i8", "(2,)", {1, 3})}}),
                  "expected lengths in 1..2, found 3");
  expect_contains(message({{"x.npy", x}, {"y.npy", npy<int64_t>("<i8", "(2,)", {0, -7})}}), "found -7");
  expect_contains(message({{"x.txt", x}}), "expected members NAME.npy");
  expect_contains(message({{"x.npy", x.substr(0, 40)}}), "x.npy), offset");
  write("cut.npz", "PK\x03\x04 and nothing more");
  EXPECT_THROW(read_npz(path("cut.npz")), FileError);
  write_npz(path("large.npz"), {{"x.npy", x}});
  expect_contains(message_of<FileError>([&] { read_npz(path("large.npz"), 50); }), "at most 50 bytes together");
}

TEST_F(OwnData, AFolderOfArraysHoldsHeadsAndWholeNumbersAsValues) {
  write("a/x.npy", npy<float>("<f4", "(5, 2)", {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  write("a/y.npy", npy<int64_t>("<i8", "(5,)", {3, 1, 4, 1, 5}));
  write("a/y_kind.npy", npy<uint8_t>("|u1", "(5,)", {0, 1, 0, 1, 1}));
  const Splits classes = load_dataset("npy:" + path("a"));
  EXPECT_EQ(classes.train.size(), 4);
  EXPECT_EQ(classes.test.size(), 1);
  ASSERT_EQ(classes.train.targets.size(), 1U);
  EXPECT_EQ(classes.train.targets[0].name, "kind");
  EXPECT_EQ(classes.train.targets[0].outputs(), Shape({2}));
  const Splits values = load_dataset("npy:" + path("a") + "?values=true&test=0.4");
  EXPECT_EQ(values.test.size(), 2);
  EXPECT_EQ(values.train.labels.shape(), Shape({3, 1}));
  EXPECT_EQ(values.train.labels.dtype(), DType::f32);
}

TEST_F(OwnData, ATableOfNumbersAndAColumnOfLabels) {
  const std::string file =
      write("t.csv", "w,h,\"kind, of\"\r\n1,2,cat\r\n3.5,-4e1,dog\r\n0,0,\"cat\"\n\n7,8,\"a \"\"b\"\"\"\n9,9,dog\n");
  const Splits data = load_dataset("csv:" + file + "?test=0.2");
  EXPECT_EQ(data.train.class_names, std::vector<std::string>({"a \"b\"", "cat", "dog"}));
  EXPECT_EQ(data.train.size() + data.test.size(), 5);
  EXPECT_EQ(data.train.input_shape(), Shape({2}));
  const Splits values = load_dataset("csv:" + write("v.csv", "a,b,c\n1,2,3\n4,5,6\n7,8,9\n") + "?target=c,a&test=0.34");
  EXPECT_EQ(values.train.labels.shape(), Shape({2, 2}));
  EXPECT_EQ(values.train.input_shape(), Shape({1}));
  const Splits whole = load_dataset("csv:" + path("v.csv") + "?test=0.34");
  EXPECT_EQ(whole.train.class_names, std::vector<std::string>({"3", "6", "9"}));
  const Splits heads =
      load_dataset("csv:" + write("h.csv", "a,kind,size\n1,x,0.5\n2,y,1.5\n3,x,2.5\n") + "?target=kind+size&test=0.34");
  EXPECT_EQ(heads.train.class_names, std::vector<std::string>({"x", "y"}));
  ASSERT_EQ(heads.train.targets.size(), 1U);
  EXPECT_EQ(heads.train.targets[0].name, "size");
  EXPECT_FALSE(heads.train.targets[0].is_classes());
}

TEST_F(OwnData, BadTablesAreErrorsWithTheirLine) {
  const auto message = [&](const std::string& text, const std::string& options = "") {
    return message_of<Error>([&] { load_dataset("csv:" + write("bad.csv", text) + options); });
  };
  expect_contains(message("a,b\n1,x\n2\n"), "bad.csv, line 3: expected 2 cells, as in the first line, found 1");
  expect_contains(message("a,b\n1,x\ntwo,y\n"), "line 3: expected a number in column 'a', found 'two'");
  expect_contains(message("a,b\n1,x\n,y\n"), "line 3: expected a number in column 'a', found ''");
  expect_contains(message("a,b\nnan,x\n2,y\n"), "line 2: expected a number in column 'a', found 'nan'");
  expect_contains(message("a,b\n1,\"x\n2,y\n"), "line 2: expected a closing quotation mark");
  expect_contains(message("a,b\n"), "expected a line of names, then rows");
  expect_contains(message(""), "expected a line of names, then rows");
  expect_contains(message(std::string("a,b\n1,x\0\n", 9)), "found a byte 0");
  expect_contains(message("price,b\n1,2\n", "?target=prise"), "did you mean 'price'");
  expect_contains(message("a,b\n1,2\n", "?targets=a"), "did you mean 'target'");
  expect_contains(message("a,b\n1,2\n", "?test=1.5"), "test");
  expect_contains(message("a,b\n1,2\n", "?test"), "expected options as in");
}

TEST_F(OwnData, IdxOfAnySize) {
  write("i/train-images-idx3-ubyte", idx({2, 1, 3}, "abcdef"));
  write("i/train-labels-idx1-ubyte", idx({2}, std::string("\0\4", 2)));
  write("i/t10k-images-idx3-ubyte", idx({1, 1, 3}, "ghi"));
  write("i/t10k-labels-idx1-ubyte", idx({1}, "\2"));
  const Splits data = load_dataset("idx:" + path("i"));
  EXPECT_EQ(data.train.input_shape(), Shape({1, 1, 3}));
  EXPECT_EQ(data.train.num_classes(), 5);
  EXPECT_EQ(data.test.images.to_vector<uint8_t>(), std::vector<uint8_t>({'g', 'h', 'i'}));
  write("i/t10k-labels-idx1-ubyte", idx({2}, "\2\2"));
  expect_contains(message_of<FileError>([&] { load_dataset("idx:" + path("i")); }), "expected 1 labels");
}

TEST_F(OwnData, AFolderOfClassFoldersOfPngAndJpeg) {
  std::filesystem::create_directories(path("f/dark"));
  std::filesystem::create_directories(path("f/light"));
  for (const char* name : {"a", "b"}) {
    write_png(path(fmt::format("f/dark/{}.png", name)), Tensor::full({1, 4, 6}, 10, DType::u8));
    write_jpeg(path(fmt::format("f/light/{}.JPG", name)), 4, 6, 200);
  }
  const Splits data = load_dataset("folder:" + path("f") + "?test=0.5");
  EXPECT_EQ(data.train.class_names, std::vector<std::string>({"dark", "light"}));
  EXPECT_EQ(data.train.input_shape(), Shape({1, 4, 6}));  // all of them are grey
  EXPECT_EQ(data.train.labels.to_vector<int64_t>(), std::vector<int64_t>({0, 1}));
  EXPECT_EQ(data.train.images.to_vector<uint8_t>().front(), 10);
  EXPECT_NEAR(data.train.images.to_vector<uint8_t>().back(), 200, 1);
  EXPECT_EQ(load_dataset("folder:" + path("f") + "?size=3&channels=3").train.input_shape(), Shape({3, 3, 3}));

  write_png(path("f/dark/c.png"), Tensor::full({1, 5, 6}, 10, DType::u8));
  expect_contains(message_of<FileError>([&] { load_dataset("folder:" + path("f")); }),
                  "c.png: expected an image of 4x6 as the first one, found 5x6");
  std::filesystem::remove(path("f/dark/c.png"));
  write("f/dark/notes.txt", "hello");
  expect_contains(message_of<FileError>([&] { load_dataset("folder:" + path("f")); }), "notes.txt: expected images");
  expect_contains(message_of<FileError>([&] { load_dataset("folder:" + path("f/dark")); }),
                  "expected a folder for each class");
  expect_contains(message_of<FileError>([&] { load_dataset("folder:nowhere"); }), "nowhere: expected a file or folder");
}

TEST_F(OwnData, DamagedJpegsAreErrors) {
  write_jpeg(path("good.jpg"), 16, 16, 90);
  std::ifstream file(path("good.jpg"), std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(read_jpeg(path("good.jpg")).shape(), Shape({3, 16, 16}));
  for (size_t cut = 0; cut + 2 < good.size(); cut += 7)
    expect_contains(message_of<FileError>([&] { read_jpeg(write("cut.jpg", good.substr(0, cut))); }), "cut.jpg");
  expect_contains(message_of<FileError>([&] { read_jpeg(write("text.jpg", "no picture")); }), "expected a JPEG image");
  std::string huge = good;  // 65,535 x 65,535 pixels in the frame's header
  const size_t frame = huge.find("\xff\xc0");
  ASSERT_NE(frame, std::string::npos);
  huge.replace(frame + 5, 4, "\xff\xff\xff\xff");
  EXPECT_THROW(read_jpeg(write("huge.jpg", huge)), FileError);
}

TEST_F(OwnData, AnAutoencodersTargetIsWhatItGets) {
  const Splits data = load_dataset("reconstruct:digits");
  EXPECT_EQ(data.train.name, "reconstruct:digits");
  EXPECT_FALSE(data.train.is_classification());
  EXPECT_EQ(data.train.all_targets().front().outputs(), Shape({1, 8, 8}));
  const DataLoader loader(data.train, {.batch_size = 4, .prefetch = 0});
  BatchStream stream = loader.batches();
  const Batch batch = *stream.next();
  EXPECT_EQ(batch.labels.to_vector<float>(), batch.images.to_vector<float>());
  EXPECT_EQ(data_name("reconstruct:DIGITS"), "reconstruct:digits");
  expect_contains(message_of<ArgumentError>([] { data_name("reconstruct:digit"); }), "digits");
  expect_contains(message_of<ArgumentError>([] { data_name("cvs:file.csv"); }), "known: npz, npy, csv");
  expect_contains(message_of<ArgumentError>([] { data_name("csv:"); }), "expected a path");
}

}  // namespace
}  // namespace espalier
