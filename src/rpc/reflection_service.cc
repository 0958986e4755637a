#include "rpc/reflection_service.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/grpcpp.h>

#include <mutex>
#include <set>
#include <string>
#include <utility>

namespace tandem::rpc {
namespace {

namespace reflection = grpc::reflection::v1alpha;
using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;
using Question = reflection::ServerReflectionRequest;
using Answer = reflection::ServerReflectionResponse;

constexpr const char* kServices[] = {"tandem.v1.Control", "tandem.v1.Replication",
                                     "grpc.health.v1.Health",
                                     "grpc.reflection.v1alpha.ServerReflection"};

void add_file(const FileDescriptor* file, std::set<std::string>& seen,
              reflection::FileDescriptorResponse* out) {
  if (!seen.insert(file->name()).second) return;
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  out->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file->dependency_count(); ++i) add_file(file->dependency(i), seen, out);
}

void answer_file(const FileDescriptor* file, Answer& answer) {
  if (!file) {
    answer.mutable_error_response()->set_error_code(grpc::StatusCode::NOT_FOUND);
    answer.mutable_error_response()->set_error_message("nothing of that name here");
    return;
  }
  std::set<std::string> seen;
  add_file(file, seen, answer.mutable_file_descriptor_response());
}

/// One client's conversation: a question is read only when the one before it is answered.
class ReflectionCall final : public Operation {
 public:
  static void listen(ReflectionAsyncService& service, const std::shared_ptr<Loop>& loop) {
    auto call = std::make_shared<ReflectionCall>(service, loop);
    if (!loop->add(call)) return;
    service.RequestServerReflectionInfo(&call->context_, &call->stream_, loop->queue(),
                                        loop->queue(), call->request_tag_.arm());
  }
  ReflectionCall(ReflectionAsyncService& service, std::shared_ptr<Loop> loop)
      : service_(service), loop_(std::move(loop)) {}
  void cancel(const Error&) override {
    std::lock_guard lock(mutex_);
    if (open_) context_.TryCancel();
  }

 private:
  void on_request(bool came) {
    if (!came) {
      loop_->remove(this);
      return;
    }
    listen(service_, loop_);
    {
      std::lock_guard lock(mutex_);
      open_ = true;
    }
    stream_.Read(&question_, read_tag_.arm());
  }
  void on_read(bool came) {
    if (!came) {
      stream_.Finish(grpc::Status::OK, finish_tag_.arm());
      return;
    }
    Answer answer;
    reflect(question_, answer);
    stream_.Write(answer, write_tag_.arm());
  }
  void on_write(bool) { stream_.Read(&question_, read_tag_.arm()); }
  void on_finish(bool) {
    {
      std::lock_guard lock(mutex_);
      open_ = false;
    }
    loop_->remove(this);
  }

  ReflectionAsyncService& service_;
  const std::shared_ptr<Loop> loop_;
  grpc::ServerContext context_;
  grpc::ServerAsyncReaderWriter<Answer, Question> stream_{&context_};
  Question question_;
  std::mutex mutex_;  // guards open_: the rest is the loop's
  bool open_ = false;
  Tag<ReflectionCall> request_tag_{this, &ReflectionCall::on_request};
  Tag<ReflectionCall> read_tag_{this, &ReflectionCall::on_read};
  Tag<ReflectionCall> write_tag_{this, &ReflectionCall::on_write};
  Tag<ReflectionCall> finish_tag_{this, &ReflectionCall::on_finish};
};

}  // namespace

void reflect(const Question& question, Answer& answer) {
  const auto* pool = DescriptorPool::generated_pool();
  answer.set_valid_host(question.host());
  *answer.mutable_original_request() = question;
  switch (question.message_request_case()) {
    case Question::kListServices:
      for (const auto* name : kServices)
        answer.mutable_list_services_response()->add_service()->set_name(name);
      return;
    case Question::kFileByFilename:
      answer_file(pool->FindFileByName(question.file_by_filename()), answer);
      return;
    case Question::kFileContainingSymbol:
      answer_file(pool->FindFileContainingSymbol(question.file_containing_symbol()), answer);
      return;
    case Question::kFileContainingExtension:
      answer_file(nullptr, answer);  // these services extend nothing
      return;
    case Question::kAllExtensionNumbersOfType:
      if (!pool->FindMessageTypeByName(question.all_extension_numbers_of_type())) {
        answer_file(nullptr, answer);
        return;
      }
      answer.mutable_all_extension_numbers_response()->set_base_type_name(
          question.all_extension_numbers_of_type());
      return;
    case Question::MESSAGE_REQUEST_NOT_SET:
      break;
  }
  answer.mutable_error_response()->set_error_code(grpc::StatusCode::INVALID_ARGUMENT);
  answer.mutable_error_response()->set_error_message("an empty question");
}

void listen_for_reflection(ReflectionAsyncService& service, std::shared_ptr<Loop> loop) {
  ReflectionCall::listen(service, loop);
}

}  // namespace tandem::rpc
