# frozen_string_literal: true

# A Ruby client in the place of GitLab Rails: makes the calls to the router that Rails makes, with Ruby's own gRPC
# library.
#
#   ruby -I STUBS client.rb ADDRESS SCENARIO
#
# STUBS is a folder with the stubs of proto/switchboard/router/v1/inference.proto. Prints what the scenario observed as
# one JSON object.

require 'json'
require 'grpc'
require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'switchboard/router/v1/inference_services_pb'

# One run of one scenario.
class Client
  ROUTER = Switchboard::Router::V1

  def initialize(address)
    @stub = ROUTER::InferenceService::Stub.new(address, :this_channel_is_insecure)
  end

  # Streams an answer, with request and response metadata.
  def stream
    operation = @stub.stream_infer(chat('What is a switchboard?'), **options, return_op: true)
    events = operation.execute.to_a
    { order: events.map(&:event).chunk_while { |a, b| a == b }.map(&:first),
      text: events.filter_map(&:delta).map(&:text).join,
      model: events.first.selection.model,
      finish_reason: events.last.completion.finish_reason,
      output_tokens: events.last.completion.usage.output_tokens,
      metadata: operation.metadata }
  end

  # Gets the whole answer in one response.
  def unary
    operation = @stub.infer(chat('What is a switchboard?'), **options, return_op: true)
    answer = operation.execute
    { text: answer.message.parts.map(&:text).join,
      role: answer.message.role,
      model: answer.selection.model,
      finish_reason: answer.completion.finish_reason,
      metadata: operation.metadata }
  end

  # The model stops sending for longer than the caller's deadline. It stops after its first piece: if it stopped
  # earlier, this version of the gem would sometimes report its own deadline as a usage error of its caller
  # (GRPC::Core::CallError).
  def deadline
    text = +''
    failed = failure do
      @stub.stream_infer(chat('hello'), deadline: Time.now + 3).each { |message| text << piece(message) }
    end
    failed.merge(text: text)
  end

  # The caller cancels after the first piece.
  def cancel
    operation = @stub.stream_infer(chat('hello'), return_op: true)
    text = +''
    failed = failure do
      operation.execute.each do |message|
        text << piece(message)
        operation.cancel unless text.empty?
      end
    end
    failed.merge(text: text)
  end

  # Two failures: one with a reason, and one with field violations.
  def errors
    unknown = chat('hello').tap { |request| request.feature = 'telepathy' }
    wrong = chat('hello').tap { |request| request.options = ROUTER::InferOptions.new(temperature: 9, top_p: 0) }
    [unknown, wrong].to_h { |request| [request.feature, failure { @stub.stream_infer(request, **options).to_a }] }
  end

  private

  def options
    { deadline: Time.now + 20, metadata: { 'x-request-id' => 'from-ruby', 'x-gitlab-global-user-id' => '42' } }
  end

  def chat(question)
    message = ROUTER::Message.new(role: :ROLE_USER, parts: [ROUTER::Part.new(text: question)])
    ROUTER::InferRequest.new(feature: 'code_generations', chat: ROUTER::ChatInput.new(messages: [message]))
  end

  def piece(message)
    message.event == :delta ? message.delta.text : ''
  end

  # Returns code and details of a failed call.
  def failure
    yield
    { code: 'OK' }
  rescue GRPC::BadStatus => e
    { code: e.class.name, details: details(e.metadata['grpc-status-details-bin']) }
  end

  def details(bytes)
    return {} unless bytes

    Google::Rpc::Status.decode(bytes).details.to_h do |any|
      type = any.type_name.split('.').last
      known = Google::Rpc.const_defined?(type) ? any.unpack(Google::Rpc.const_get(type)) : nil
      [type, known.to_h]
    end
  end
end

client = Client.new(ARGV.fetch(0))
puts JSON.generate(client.public_send(ARGV.fetch(1)))
