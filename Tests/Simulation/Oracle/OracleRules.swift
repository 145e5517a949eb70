import GatewayCore
import MQTT

/// What the oracle must know of a world beside what its peers tell.
package struct OracleRules: Sendable {
    /// In the order in which peers are numbered; the cloud comes behind the last of them.
    package var clients: [ClientPlan]
    package var cloud: CloudPlan?
    /// Of the one uplink, in the order in which they decide.
    package var out: [UplinkRoutes.Route] = []
    package var `in`: [UplinkRoutes.Route] = []
    /// Whether a topic's messages go up in order: not while live messages may overtake a backlog, nor when routes change.
    package var isOrderedUpwards = true
    /// As the gateway's limits have it.
    package var returnGraceMilliseconds: UInt64 = 30_000
    /// Whether Sessions without a place in the journal have room for all that is published meanwhile.
    package var volatileQueuesAreAmple = true

    package init(clients: [ClientPlan], cloud: CloudPlan?) {
        self.clients = clients
        self.cloud = cloud
    }
}

/// Which Topic Names which Topic Filters match, each asked once.
struct Matching {
    private var topicPlaces: [[UInt8]: Int] = [:]
    private(set) var topics: [[UInt8]] = []
    private var filterPlaces: [TopicFilter: Int] = [:]
    private(set) var filters: [TopicFilter] = []
    private var known: [UInt64: Bool] = [:]

    mutating func place(ofTopic topic: [UInt8]) -> Int {
        if let place = topicPlaces[topic] { return place }
        topics.append(topic)
        topicPlaces[topic] = topics.count - 1
        return topics.count - 1
    }

    mutating func place(ofFilter filter: TopicFilter) -> Int {
        if let place = filterPlaces[filter] { return place }
        filters.append(filter)
        filterPlaces[filter] = filters.count - 1
        return filters.count - 1
    }

    mutating func matches(filter: Int, topic: Int) -> Bool {
        let key = UInt64(filter) << 32 | UInt64(topic)
        if let answer = known[key] { return answer }
        let answer = filters[filter].matches(topics[topic])
        known[key] = answer
        return answer
    }
}
