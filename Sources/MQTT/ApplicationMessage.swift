/// An Application Message: Topic Name, the properties that travel with it, and payload, immutable and in
/// one allocation, so that a message waiting for any number of receivers costs its bytes once.
///
/// Message Expiry, Topic Alias, Subscription Identifiers, QoS and RETAIN belong to a delivery, not to the
/// message: they are in `Publish`.
package struct ApplicationMessage: Hashable, Sendable {
    /// Topic Name, then forwarded properties as MQTT 5 encodes them (without their length), then payload.
    package let bytes: [UInt8]
    private let topicLength: UInt16
    private let propertiesLength: UInt32

    /// Joins the three parts.
    ///
    /// - Parameters:
    ///   - topic: a Topic Name that has passed `TopicName.isValid`, at most 65 535 bytes; may be empty in a
    ///     PUBLISH that carries a Topic Alias.
    ///   - properties: Payload Format Indicator, Content Type, Response Topic, Correlation Data and User
    ///     Properties in MQTT 5's encoding and in the publisher's order, already validated; empty for none.
    /// - Complexity: O(bytes)
    package init(
        topic: some Collection<UInt8>, properties: some Collection<UInt8>, payload: some Collection<UInt8>
    ) {
        precondition(topic.count <= Int(UInt16.max), "a Topic Name has at most 65 535 bytes")
        var bytes: [UInt8] = []
        bytes.reserveCapacity(topic.count + properties.count + payload.count)
        bytes.append(contentsOf: topic)
        bytes.append(contentsOf: properties)
        bytes.append(contentsOf: payload)
        self.bytes = bytes
        self.topicLength = UInt16(topic.count)
        self.propertiesLength = UInt32(properties.count)
    }

    /// A message without properties.
    package init(topic: some Collection<UInt8>, payload: some Collection<UInt8>) {
        self.init(topic: topic, properties: EmptyCollection<UInt8>(), payload: payload)
    }

    /// A message out of a packet, whose three parts have been checked.
    init(
        topic: UnsafeRawBufferPointer, properties: borrowing MessageProperties,
        payload: UnsafeRawBufferPointer
    ) {
        let forwardedCount = properties.forwardedCount
        var bytes: [UInt8] = []
        bytes.reserveCapacity(topic.count + forwardedCount + payload.count)
        bytes.append(contentsOf: topic)
        if forwardedCount > 0 { properties.appendForwarded(to: &bytes) }
        bytes.append(contentsOf: payload)
        self.bytes = bytes
        self.topicLength = UInt16(topic.count)
        self.propertiesLength = UInt32(forwardedCount)
    }

    package var topic: ArraySlice<UInt8> { bytes[..<Int(topicLength)] }
    package var properties: ArraySlice<UInt8> {
        bytes[Int(topicLength)..<Int(topicLength) + Int(propertiesLength)]
    }
    package var payload: ArraySlice<UInt8> { bytes[(Int(topicLength) + Int(propertiesLength))...] }

    /// Lends its three parts at once, without the cost of slices.
    package func withParts(
        _ body: (
            _ topic: UnsafeRawBufferPointer, _ properties: UnsafeRawBufferPointer,
            _ payload: UnsafeRawBufferPointer
        ) -> Void
    ) {
        let propertiesStart = Int(topicLength)
        let payloadStart = propertiesStart + Int(propertiesLength)
        bytes.withUnsafeBytes { all in
            body(
                UnsafeRawBufferPointer(rebasing: all[..<propertiesStart]),
                UnsafeRawBufferPointer(rebasing: all[propertiesStart..<payloadStart]),
                UnsafeRawBufferPointer(rebasing: all[payloadStart...]))
        }
    }

    package var payloadCount: Int { bytes.count - Int(topicLength) - Int(propertiesLength) }

    /// The same message under another Topic Name: for Topic Aliases and for an uplink's topic templates.
    ///
    /// - Complexity: O(bytes)
    package func renamed(to topic: some Collection<UInt8>) -> ApplicationMessage {
        ApplicationMessage(topic: topic, properties: properties, payload: payload)
    }
}
