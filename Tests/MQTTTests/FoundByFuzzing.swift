import MQTT
import Testing

/// Streams that once broke a rule of `FuzzedStream`, found by `make fuzz`, and others like them.
///
/// A finding is added with its cause, as the bytes of the file that the fuzzer wrote.
@Suite("4.13 What fuzzing finds")
struct FoundByFuzzing {
    @Test("examples, cut in many ways", arguments: Examples.all)
    func example(_ example: Example) {
        for cuts: UInt8 in 0..<16 {
            let input = FuzzedStream.input(
                to: example.receiver, version: example.isConnect ? nil : example.version, cuts: cuts,
                example.bytes)
            #expect(FuzzedStream(input).brokenRule() == nil)
            #expect(FuzzedStream(input).bytes == example.bytes)
        }
    }

    @Test("a fuzzed stream arrives where its first byte says")
    func input() {
        for receiver in [PacketDecoder.Receiver.server, .client] {
            for version in [ProtocolVersion.v3_1, .v3_1_1, .v5_0] {
                let stream = FuzzedStream(FuzzedStream.input(to: receiver, version: version, [0xC0, 0]))
                #expect(stream.receiver == receiver)
                #expect(stream.version == version)
                #expect(stream.maximumPacketSize == 20_000)
            }
        }
        #expect(FuzzedStream([]).version == nil)
    }
}
