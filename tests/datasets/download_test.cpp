// Downloads from an HTTP server on this machine that can go wrong in all the usual ways.
#include "datasets/download.h"

#include <atomic>
#include <csignal>
#include <cstring>
#include <optional>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "datasets/archive.h"
#include "datasets/dataset.h"
#include "datasets/sha256.h"
#include "tests/datasets/fixtures.h"

namespace espalier {
namespace {

// Serves `contents` at every path, one connection at a time.
class Server {
 public:
  explicit Server(std::string contents) : contents_(std::move(contents)) {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(listener_, 8) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
      ADD_FAILURE() << "no socket: " << std::strerror(errno);
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~Server() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }

  std::string url(const std::string& name = "file.bin") const {
    return fmt::format("http://127.0.0.1:{}/{}", port_, name);
  }
  int requests() const { return requests_; }
  int ranges() const { return ranges_; }

  std::atomic<int> status = 200;        // of the next answers
  std::atomic<int> fail_first = 0;      // so many answers are 503
  std::atomic<int64_t> cut_after = -1;  // breaks the first connection after so many bytes of the body
  std::atomic<bool> can_resume = true;
  std::atomic<bool> trickle = false;  // five bytes a second, for four seconds

 private:
  void serve() {
    for (;;) {
      const int client = accept(listener_, nullptr, nullptr);
      if (client < 0) return;
      answer(client);
      close(client);
    }
  }

  void answer(int client) {
    std::string request;
    char buffer[4096];
    while (request.find("\r\n\r\n") == std::string::npos) {
      const ssize_t got = recv(client, buffer, sizeof(buffer), 0);
      if (got <= 0) return;
      request.append(buffer, static_cast<size_t>(got));
    }
    ++requests_;
    if (fail_first > 0) {
      --fail_first;
      send_all(client, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy");
      return;
    }
    if (status != 200) {
      send_all(client, fmt::format("HTTP/1.1 {} Something\r\nContent-Length: 9\r\nConnection: close\r\n\r\nan error!",
                                   status.load()));
      return;
    }
    size_t start = 0;
    std::string head = "HTTP/1.1 200 OK\r\n";
    const size_t range = request.find("Range: bytes=");
    if (range != std::string::npos) ++ranges_;
    if (range != std::string::npos && can_resume) {
      start = std::stoul(request.substr(range + 13));
      if (start >= contents_.size()) {
        send_all(client, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
      }
      head = fmt::format("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {}-{}/{}\r\n", start,
                         contents_.size() - 1, contents_.size());
    }
    send_all(client, fmt::format("{}Content-Length: {}\r\nConnection: close\r\n\r\n", head, contents_.size() - start));
    for (int i = 0; trickle && i < 20; ++i) {
      send_all(client, contents_.substr(static_cast<size_t>(i), 1));
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    if (trickle) return;
    const int64_t cut = cut_after.exchange(-1);
    send_all(client, contents_.substr(start, cut < 0 ? std::string::npos : static_cast<size_t>(cut)));
  }

  static void send_all(int client, const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = send(client, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return;
      sent += static_cast<size_t>(n);
    }
  }

  std::string contents_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<int> requests_ = 0, ranges_ = 0;
  std::thread thread_;
};

std::string sum_of(const std::string& bytes) {
  Sha256 sum;
  sum.update(bytes.data(), bytes.size());
  return sum.hex();
}

class Download : public FolderTest {
 protected:
  ScopedEnvironment proxy_{"http_proxy", ""};
  ScopedEnvironment all_proxy_{"all_proxy", ""};
  const std::string contents_ = noise(3'000'000);
  const std::string sum_ = sum_of(contents_);
  Server server_{contents_};
};

TEST(Sha256, KnowsTheStandardsExample) {
  EXPECT_EQ(sum_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sum_of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST_F(Download, FetchesChecksAndReports) {
  std::vector<DownloadProgress> reports;
  download_file(server_.url(), path("deep/er/file.bin"), sum_,
                {.progress = [&](const DownloadProgress& p) { return reports.push_back(p), true; }});
  EXPECT_EQ(read_file(path("deep/er/file.bin")), contents_);
  EXPECT_FALSE(std::filesystem::exists(path("deep/er/file.bin.part")));
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back().file, "file.bin");
  EXPECT_EQ(reports.back().bytes, 3'000'000);
  EXPECT_EQ(reports.back().total, 3'000'000);
  EXPECT_GT(reports.back().bytes_per_second, 0);
}

TEST_F(Download, GoesOnAfterABrokenConnection) {
  server_.cut_after = 1'000'000;
  DownloadProgress last;
  download_file(server_.url(), path("file.bin"), sum_, {.progress = [&](const DownloadProgress& p) {
                  last = p;
                  return true;
                }});
  EXPECT_EQ(read_file(path("file.bin")), contents_);
  EXPECT_EQ(server_.requests(), 2);
  EXPECT_EQ(server_.ranges(), 1);
  EXPECT_EQ(last.bytes, 3'000'000) << "progress counts what was there before";
  EXPECT_EQ(last.total, 3'000'000);
}

TEST_F(Download, KeepsThePartAndGoesOnInALaterCall) {
  server_.cut_after = 1'000'000;
  expect_file_error([&] { download_file(server_.url(), path("file.bin"), sum_, {.retries = 0}); },
                    {server_.url(), "1000000 bytes are kept in " + path("file.bin.part"), "run it again"});
  EXPECT_FALSE(std::filesystem::exists(path("file.bin")));
  download_file(server_.url(), path("file.bin"), sum_);
  EXPECT_EQ(read_file(path("file.bin")), contents_);
  EXPECT_EQ(server_.ranges(), 1);
}

TEST_F(Download, StartsAgainWhereItCannotGoOn) {
  server_.can_resume = false;
  write("file.bin.part", contents_.substr(0, 1000));
  download_file(server_.url(), path("file.bin"), sum_);
  EXPECT_EQ(read_file(path("file.bin")), contents_);

  server_.can_resume = true;
  write("other.bin.part", std::string(1000, 'x'));  // of another version
  download_file(server_.url(), path("other.bin"), sum_);
  EXPECT_EQ(read_file(path("other.bin")), contents_);

  write("long.bin.part", contents_ + "more");
  download_file(server_.url(), path("long.bin"), sum_);
  EXPECT_EQ(read_file(path("long.bin")), contents_);

  const int before = server_.requests();
  write("whole.bin.part", contents_);  // only the renaming was missing
  download_file(server_.url(), path("whole.bin"), sum_);
  EXPECT_EQ(read_file(path("whole.bin")), contents_);
  EXPECT_EQ(server_.requests(), before);
}

TEST_F(Download, RefusesOtherData) {
  const std::string wrong(64, '0');
  write("file.bin", "old");
  expect_file_error([&] { download_file(server_.url(), path("file.bin"), wrong); },
                    {server_.url(), "expected SHA-256 " + wrong, "found " + sum_, "3000000 bytes"});
  EXPECT_EQ(read_file(path("file.bin")), "old");
  EXPECT_FALSE(std::filesystem::exists(path("file.bin.part")));
}

TEST_F(Download, SaysTheStatus) {
  server_.status = 404;
  expect_file_error([&] { download_file(server_.url(), path("file.bin"), sum_); },
                    {server_.url(), "expected HTTP status 200, found 404"});
  EXPECT_EQ(server_.requests(), 1) << "there is no use in asking again";
  EXPECT_FALSE(std::filesystem::exists(path("file.bin")));
  server_.status = 200;
  download_file(server_.url(), path("file.bin"), sum_);
  EXPECT_EQ(read_file(path("file.bin")), contents_) << "the error page must not be in it";
}

TEST_F(Download, TriesAgainWhenTheServerIsBusy) {
  server_.fail_first = 2;
  download_file(server_.url(), path("file.bin"), sum_);
  EXPECT_EQ(server_.requests(), 3);
  EXPECT_EQ(read_file(path("file.bin")), contents_);
}

TEST_F(Download, SaysWhatTheNetworkSays) {
  std::string closed;
  {
    const Server gone("x");
    closed = gone.url();
  }
  expect_file_error([&] { download_file(closed, path("file.bin"), sum_); }, {closed, "onnect", "check the network"});
  expect_file_error([&] { download_file("file:///etc/passwd", path("file.bin"), ""); }, {"file:///etc/passwd"});
  EXPECT_FALSE(std::filesystem::exists(path("file.bin")));
}

TEST_F(Download, CanBeCancelledAndGoesOn) {
  const auto cancel = [](const DownloadProgress& p) { return p.bytes == 0; };
  EXPECT_THROW(download_file(server_.url(), path("file.bin"), sum_, {.progress = cancel}), DownloadCancelled);
  EXPECT_FALSE(std::filesystem::exists(path("file.bin")));
  download_file(server_.url(), path("file.bin"), sum_);
  EXPECT_EQ(read_file(path("file.bin")), contents_);
}

TEST_F(Download, StopsAtASizeThatNoFileOfTheDataSetHas) {
  expect_file_error([&] { download_file(server_.url(), path("file.bin"), sum_, {.most_bytes = 2'999'999}); },
                    {server_.url(), "expected at most 2999999 bytes", "another mirror"});
  EXPECT_FALSE(std::filesystem::exists(path("file.bin.part")));
  download_file(server_.url(), path("file.bin"), sum_, {.most_bytes = 3'000'000});
  EXPECT_EQ(read_file(path("file.bin")), contents_);
}

// Five bytes a second, as a server may that wants to hold a client.
TEST_F(Download, GivesUpOnAServerThatTrickles) {
  server_.trickle = true;
  expect_file_error(
      [&] {
        download_file(server_.url(), path("file.bin"), sum_, {.retries = 0, .stall_seconds = 2, .slowest = 1000});
      },
      {server_.url(), "check the network"});
}

TEST_F(Download, SaysWhenTheDiskIsFull) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {100'000, 100'000};
    setrlimit(RLIMIT_FSIZE, &limit);
    int status = 1;
    try {
      download_file(server_.url(), path("file.bin"), sum_);
    } catch (const FileError& error) {
      status = std::strstr(error.what(), "free some space") != nullptr ? 0 : 2;
    }
    _exit(status);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_FALSE(std::filesystem::exists(path("file.bin")));
}

TEST_F(Download, DataSetsComeFromAMirrorAndAreVerified) {
  expect_file_error([&] { download_dataset("cifar10", folder_.string(), {.mirror = server_.url("mirror")}); },
                    {"/mirror/cifar-10-binary.tar.gz", "expected SHA-256 c4a38c50", "found " + sum_});
  EXPECT_THROW(download_dataset("digits", folder_.string()), ArgumentError);
  EXPECT_THROW(download_dataset("imagenet", folder_.string()), ArgumentError);
}

TEST_F(Download, KeepsFilesThatAreRightAlready) {
  const std::optional<std::string> source = [&]() -> std::optional<std::string> {
    try {
      return load_dataset("fashion-mnist").train.source;
    } catch (const FileError&) {
      return std::nullopt;
    }
  }();
  if (!source) GTEST_SKIP() << "skipped: no Fashion-MNIST found";
  // Debian compresses the files anew: other bytes, but the same contents.
  std::filesystem::create_directories(path("fashion-mnist"));
  std::filesystem::copy(*source, path("fashion-mnist"));
  const std::string before = read_file(path("fashion-mnist/train-labels-idx1-ubyte.gz"));
  EXPECT_EQ(download_dataset("fashion-mnist", folder_.string(), {.mirror = server_.url("mirror")}),
            path("fashion-mnist"));
  EXPECT_EQ(server_.requests(), 0);
  EXPECT_EQ(read_file(path("fashion-mnist/train-labels-idx1-ubyte.gz")), before);
}

TEST_F(Download, UnpacksArchivesIntoOneFolder) {
  const std::string archive =
      write("x.tar.gz", gzip(tar({{"gzip/a.gz", "one"}, {"../../b.gz", "two"}, {"gzip/readme", "three"}})));
  std::filesystem::create_directories(path("out"));
  unpack_archive(archive, path("out"), ".gz", 1000);
  EXPECT_EQ(read_file(path("out/a.gz")), "one");
  EXPECT_EQ(read_file(path("out/b.gz")), "two");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(path("out")), {}), 2);
  expect_file_error([&] { unpack_archive(archive, path("out"), ".gz", 5); }, {"x.tar.gz", "at most 5 bytes"});
  expect_file_error([&] { unpack_archive(archive, path("out"), ".png", 1000); }, {"x.tar.gz", "'.png'"});
  expect_file_error([&] { unpack_archive(write("y.zip", "PK no"), path("out"), ".gz", 1000); }, {"y.zip"});
}

}  // namespace
}  // namespace espalier
