#include "pruning/picture.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "tests/training/support.h"

namespace espalier {
namespace {

TEST(MaskPicture, IsAPngOfTheRightSize) {
  const testing_support::TemporaryFolder folder;
  const Mask mask = Mask::from_units({2, 3}, Pattern::element(), {true, false, true, false, true, false});
  save_mask_png(folder.file("m.png"), mask, 4);
  const std::string bytes = testing_support::read_file(folder.file("m.png"));
  ASSERT_GT(bytes.size(), 33u);
  EXPECT_EQ(bytes.substr(1, 3), "PNG");
  // IHDR: width and height, big-endian.
  EXPECT_EQ(static_cast<int>(bytes[19]), 12);
  EXPECT_EQ(static_cast<int>(bytes[23]), 8);
}

TEST(MaskPicture, LargeWeightsAreAveraged) {
  const testing_support::TemporaryFolder folder;
  save_mask_png(folder.file("m.png"), Mask::all({300, 2000}), 1, 100);
  const std::string bytes = testing_support::read_file(folder.file("m.png"));
  EXPECT_EQ(static_cast<int>(static_cast<uint8_t>(bytes[19])), 100);
  EXPECT_EQ(static_cast<int>(static_cast<uint8_t>(bytes[23])), 100);
}

TEST(MaskPicture, SaysWhatIsWrong) {
  EXPECT_THROW(save_mask_png("/nowhere/m.png", Mask::all({2, 2})), FileError);
  EXPECT_THROW(save_mask_png("m.png", Mask()), ArgumentError);
}

}  // namespace
}  // namespace espalier
