import MQTT

/// What the operator decided, as values: the core reads no file.
package struct GatewayPlan: Sendable {
    package var limits = Limits()
    /// Session Expiry of 3.1 and 3.1.1 clients with Clean Session 0, in seconds; `UInt32.max` is never.
    package var expirySecondsBefore5: UInt32 = .max
    /// The longest Session Expiry an MQTT 5 client gets, in seconds; `UInt32.max` is no bound.
    package var expirySecondsMax: UInt32 = .max
    /// How often the `$SYS/broker/…` tree is brought up to date; nil when there is none.
    package var systemTopicsMilliseconds: UInt64?
    /// The value of `$SYS/broker/version`.
    package var version = "tidegate"
    /// What a listener takes where that is less than `limits.packetBytesMax`, by the index it is told with.
    package var packetBytesMaxByListener: [Int: UInt32] = [:]
    /// In the order of their `UplinkIndex`.
    package var uplinks: [UplinkRoutes] = []

    package init() {}
}

/// One uplink as the core sees it: a name for its state, and its routes.
package struct UplinkRoutes: Sendable {
    package var name: String
    /// Local to cloud; for a message that several routes match, the first decides.
    package var out: [Route]
    /// Cloud to local; the first match decides.
    package var `in`: [Route]

    package init(name: String, out: [Route], in inbound: [Route]) {
        self.name = name
        self.out = out
        self.in = inbound
    }

    package struct Route: Hashable, Sendable {
        /// The Topic Filter on the side the messages come from.
        package var filter: TopicFilter
        package var rename: TopicRename?
        /// The highest QoS the route carries.
        package var maximumQoS: QoS

        package init(filter: TopicFilter, rename: TopicRename?, maximumQoS: QoS) {
            self.filter = filter
            self.rename = rename
            self.maximumQoS = maximumQoS
        }
    }
}

extension TopicRename {
    /// The renamed topic; nil when nothing is left or it would be longer than a Topic Name may be.
    ///
    /// - Complexity: O(bytes)
    package func applied(to topic: ArraySlice<UInt8>) -> [UInt8]? {
        guard topic.count >= dropping else { return nil }
        let renamed = prepending + topic.dropFirst(dropping)
        return renamed.isEmpty || renamed.count > Int(UInt16.max) ? nil : renamed
    }
}
