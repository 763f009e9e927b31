#include "layers/channels.h"

namespace espalier {

int channel_axis(ChannelAxis axis, int rank) {
  const bool is_second = axis == ChannelAxis::second || (axis == ChannelAxis::images && rank == 4);
  return is_second && rank > 1 ? 1 : rank - 1;
}

}  // namespace espalier
