#include "core/error.h"

#include <gtest/gtest.h>

#include "core/kernels.h"
#include "core/tensor.h"

namespace espalier {
namespace {

TEST(Error, MessageBeginsWithTheOperation) {
  try {
    fail<FileError>("load", "expected {} bytes, got {}", 8, 3);
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "[load] expected 8 bytes, got 3");
    EXPECT_NE(dynamic_cast<const FileError*>(&error), nullptr);
  }
}

TEST(Error, CheckThrowsOnlyWhenItFails) {
  EXPECT_NO_THROW(check(true, "add", "never {}", 1));
  EXPECT_THROW(check(false, "add", "always {}", 1), ArgumentError);
}

TEST(Error, FormatsShapes) {
  try {
    fail("add", "{} and {}", Shape{2, 3}, Shape{});
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "[add] (2,3) and ()");
  }
}

TEST(Error, EveryKindIsAnErrorAndAStandardException) {
  EXPECT_THROW(fail<ArgumentError>("a", "b"), Error);
  EXPECT_THROW(fail<FileError>("a", "b"), Error);
  EXPECT_THROW(fail<UnavailableError>("a", "b"), Error);
  EXPECT_THROW(fail<NumericError>("a", "b"), std::runtime_error);
}

TEST(DidYouMean, SuggestsTheNearestName) {
  const std::vector<std::string> models = {"lenet300", "lenet5", "resnet20", "resnet32", "vgg16"};
  EXPECT_EQ(did_you_mean("resnet2", models), ", did you mean 'resnet20'?");
  EXPECT_EQ(did_you_mean("lenet-5", models), ", did you mean 'lenet5'?");
  EXPECT_EQ(did_you_mean("rasnet32", models), ", did you mean 'resnet32'?");
  EXPECT_EQ(did_you_mean("vgg61", models), ", did you mean 'vgg16'?");
}

TEST(DidYouMean, IsSilentWhenNothingIsNear) {
  EXPECT_EQ(did_you_mean("transformer", {"lenet5", "vgg16"}), "");
  EXPECT_EQ(did_you_mean("x", {}), "");
  EXPECT_EQ(did_you_mean("", {"lenet5"}), "");
}

TEST(Backend, OneThatIsNotBuiltInSaysSo) {
  if (cuda::is_available()) GTEST_SKIP() << "this build has a GPU backend";
  EXPECT_THROW(kernels(Device::cuda()), UnavailableError);
  EXPECT_THROW(Tensor::zeros({2}, DType::f32, Device::cuda()), UnavailableError);
  EXPECT_THROW(Tensor::zeros({2}).to(Device::cuda()), UnavailableError);
  EXPECT_STREQ(kernels(Device::cpu()).name, "cpu");
}

}  // namespace
}  // namespace espalier
