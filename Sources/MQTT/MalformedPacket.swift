/// A rule of the encoding that a peer broke. `reasonCode` is what MQTT 5 answers with.
package enum MalformedPacket: Error, Hashable, Sendable {
    case overlongVariableByteInteger  // [MQTT5-1.5.5-1]
}
