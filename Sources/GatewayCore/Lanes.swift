import MQTT

/// One queue of an uplink. They share the cloud's Session, each with Packet Identifiers of its own
/// (`PacketIdentifierRule`), and its Receive Maximum.
struct Lane {
    let session: SessionID
    /// 0 is the uplink's own Session, which is there always.
    let number: UInt8
    let label: String
    var priority = UplinkRoutes.Priority.normal
    /// Only for what is new: it holds little, waits for no drain, and what it has no room for joins a backlog.
    var isLive = false
    /// Whether any route leads here. If none does any more, the lane ends when it is empty.
    var isRouted = false

    /// What leaves first, is first.
    static func precedes(_ a: Lane, _ b: Lane) -> Bool {
        if a.priority != b.priority { return a.priority < b.priority }
        if a.isLive != b.isLive { return a.isLive }
        return a.number < b.number
    }
}

extension UplinkRoutes.Route {
    /// Names the lane that its messages wait in, "" the uplink's first; what it says is on flash. Routes of one
    /// label share a lane, so that they leave in the order in which they came.
    package var laneLabel: String {
        queue != nil ? "route \(String(decoding: filter.bytes, as: UTF8.self))" : priority.laneLabel
    }

    /// The same of the lane for what is new; nil where everything waits in order.
    package var liveLaneLabel: String? {
        guard isLiveFirst else { return nil }
        return laneLabel.isEmpty ? "live" : "live \(laneLabel)"
    }
}

extension UplinkRoutes.Priority {
    /// Of the lane for what has this priority and nothing else that sets it apart.
    var laneLabel: String {
        switch self {
        case .high: "high"
        case .normal: ""
        case .low: "low"
        }
    }
}

extension UplinkRoutes {
    /// The lanes that the routes ask for, beside the first; there may be 7. What does not find one is in the first.
    package var laneLabels: [String] {
        var labels: [String] = []
        for route in out {
            for case let label? in [route.laneLabel, route.liveLaneLabel]
            where !label.isEmpty && !labels.contains(label) {
                labels.append(label)
            }
        }
        return labels
    }
}

// An uplink's routes lead into its lanes. Every topic takes one route, and so one lane but for what is live: within it
// everything leaves in the order in which it came [MQTT5-4.6.0-6]. What was in flight on a lost connection is sent again
// in the order of its lane, and lanes in theirs: no topic notices, though the cloud saw another order across topics
// ![MQTT5-4.6.0-1].
extension Gateway {
    // MARK: Laying out

    /// Opens the lanes that the routes ask for, ends those that nothing is left in, and leads the routes there.
    mutating func layLanes(of index: UplinkIndex, at now: Instant, into effects: inout [Effect]) {
        let n = index.number
        let (routes, first) = (plan.uplinks[n], uplinks[n].session)
        for filter in uplinks[n].routed { state.routing.remove(first, filter: filter) }
        uplinks[n].routed = routes.out.map(\.filter)
        uplinks[n].lanes = [Lane(session: first, number: 0, label: "", isRouted: true)]
        for number in 1..<PacketIdentifierRule.laneCount {
            let owner = SessionOwner.lane(uplink: routes.name, number: number, label: "")
            guard let session = state.session(of: owner),
                case .lane(_, _, let label) = state[session]?.owner
            else { continue }
            uplinks[n].lanes.append(Lane(session: session, number: number, label: label))
        }
        let profiled = laneLabelsOfProfiles(for: routes.name)
        let wanted = routes.laneLabels + profiled
        for i in uplinks[n].lanes.indices where wanted.contains(uplinks[n].lanes[i].label) {
            uplinks[n].lanes[i].isRouted = true
        }
        endEmptyLanes(of: index, into: &effects)
        for i in uplinks[n].lanes.indices {
            _ = update(uplinks[n].lanes[i].session) { session in
                session.bounds = nil
                session.backlog = nil
            }
        }
        for (rank, route) in routes.out.enumerated() { lead(route, rank: rank, of: index, into: &effects) }
        for priority in UplinkRoutes.Priority.allCases where profiled.contains(priority.laneLabel) {
            guard let lane = lane(priority.laneLabel, of: index, into: &effects) else { continue }
            uplinks[n].lanes[lane].priority = priority
        }
        uplinks[n].lanes.sort(by: Lane.precedes)
        uplinks[n].bucket = TokenBucket(routes.drain, at: now)
        if uplinks[n].isConnected { openLanes(of: index) }
        noteSharing(of: index)
        hasLiveLanes = uplinks.contains { $0.lanes.contains { $0.isLive } }
    }

    private mutating func lead(
        _ route: UplinkRoutes.Route, rank: Int, of index: UplinkIndex, into effects: inout [Effect]
    ) {
        let n = index.number
        let backlog = lane(route.laneLabel, of: index, into: &effects) ?? 0
        if backlog > 0 { uplinks[n].lanes[backlog].priority = route.priority }
        let waiting = uplinks[n].lanes[backlog].session
        if backlog > 0, let bounds = route.queue { _ = update(waiting) { $0.bounds = bounds } }
        var session = waiting
        if let label = route.liveLaneLabel, let live = lane(label, of: index, into: &effects) {
            uplinks[n].lanes[live].isLive = true
            uplinks[n].lanes[live].priority = uplinks[n].lanes[backlog].priority
            session = uplinks[n].lanes[live].session
            _ = update(session) { $0.backlog = waiting }
        }
        state.routing.insert(
            Routing.Subscriber(session: session, owner: uplinks[n].session, route, rank: rank),
            filter: route.filter)
    }

    /// The place of the lane with this label, which is opened where there is none; nil when there are too many.
    private mutating func lane(
        _ label: String, of index: UplinkIndex, into effects: inout [Effect]
    ) -> Int? {
        let lanes = uplinks[index.number].lanes
        if let place = lanes.firstIndex(where: { $0.label == label }) { return place }
        guard
            let number = (1..<PacketIdentifierRule.laneCount).first(where: { number in
                !lanes.contains { $0.number == number }
            })
        else { return nil }
        let session = newSessionID(inJournal: true)
        let owner = SessionOwner.lane(uplink: plan.uplinks[index.number].name, number: number, label: label)
        let opened = SessionOpened(
            session: session, owner: owner, version: .v5_0, expirySeconds: .max, isPersistent: true, will: nil
        )
        _ = commit(.sessionOpened(opened), into: &effects)
        uplinks[index.number].lanes.append(
            Lane(session: session, number: number, label: label, isRouted: true))
        return lanes.count
    }

    /// Lanes that no route leads to, and in which nothing waits any more, end; their numbers are free again. All that
    /// was sent under their identifiers is settled, by Records that come before the one of their end.
    private mutating func endEmptyLanes(of index: UplinkIndex, into effects: inout [Effect]) {
        let n = index.number
        for lane in uplinks[n].lanes where !lane.isRouted {
            let end = read(lane.session) { $0.queue.waitingCount == 0 ? $0.queue.end : nil } ?? nil
            guard let end else { continue }
            // Also what a checkpoint knew to be settled and no Record yet: whoever replays without it counts alike.
            let settled = AcknowledgedRecord(session: lane.session, floor: end, settledAbove: [])
            _ = commit(.acknowledged(settled), .lazy, into: &effects)
            loseFlow(of: lane.session, into: &effects)
            _ = commit(.sessionEnded(lane.session, .administrative), into: &effects)
            uplinks[n].lanes.removeAll { $0.number == lane.number }
        }
    }

    /// An ordinary uplink, one queue that nothing paces, is pumped like any receiver.
    private mutating func noteSharing(of index: UplinkIndex) {
        let upstream = uplinks[index.number]
        let isShared = upstream.lanes.count > 1 || upstream.bucket != nil
        for lane in upstream.lanes {
            _ = update(lane.session) { session in
                session.sharedUplink = isShared ? index : nil
                session.flow?.isPaced = upstream.bucket != nil && !lane.isLive
                session.flow?.inFlightMax = upstream.inFlightMax
            }
        }
    }

    /// Lets every lane flow on the connection there is, if it does not yet.
    mutating func openLanes(of index: UplinkIndex) {
        let upstream = uplinks[index.number]
        guard let terms = upstream.terms else { return }
        let peer = Peer.uplink(index, epoch: upstream.epoch)
        // Older versions have no room for it.
        let provenance = terms.version == .v5_0 ? plan.uplinks[index.number].provenance : nil
        for lane in upstream.lanes {
            _ = update(lane.session) { session in
                defer { session.flow?.provenance = provenance }
                guard session.flow?.peer != peer else { return }
                session.flow = OutboundFlow(
                    peer: peer, version: terms.version, inFlightMax: upstream.inFlightMax,
                    packetBytesMax: terms.maximumPacketSize, maximumQoS: terms.maximumQoS,
                    retainAvailable: terms.retainAvailable, next: session.queue.floor)
            }
        }
        noteSharing(of: index)
    }

    // MARK: Arriving

    /// Who gets what is published, and in which queue: what is new leaves ahead of its backlog where its route says
    /// so, while it can leave at once.
    func shares(
        of topic: ArraySlice<UInt8>, published qos: QoS, retain: Bool, by publisher: SessionID?
    ) -> [MessageRecord.Target] {
        var shares = state.routing.shares(of: topic, published: qos, retain: retain, by: publisher)
        guard hasLiveLanes else { return shares }
        for i in shares.indices {
            guard let backlog = read(shares[i].session, { $0.backlog }) ?? nil,
                !isLaneLive(shares[i].session)
            else { continue }
            shares[i].session = backlog
        }
        return shares
    }

    /// Whether what joins a live lane now leaves within moments.
    private func isLaneLive(_ session: SessionID) -> Bool {
        let (countMax, bytesMax) = (plan.limits.liveMessagesMax, plan.limits.liveBytesMax)
        return isFlowOpen(session)
            && read(session) {
                $0.queue.waitingCount < countMax && $0.queue.waitingBytes < bytesMax
            } == true
    }

    // MARK: Leaving

    /// Sends what may be sent now from an uplink's lanes, in their order: no more than the cloud's Receive Maximum
    /// in all of them together [MQTT5-3.3.4-7].
    ///
    /// - Complexity: O(lanes + deliveries sent)
    mutating func pumpLanes(of index: UplinkIndex, at now: Instant, into effects: inout [Effect]) {
        let n = index.number
        uplinks[n].isDry = false
        var inFlight = inFlightCount(of: index)
        var isAnyEmpty = false
        for i in uplinks[n].lanes.indices {
            let lane = uplinks[n].lanes[i]
            let limit = uplinks[n].inFlightMax
            let found = update(lane.session) { session -> (Int, Bool)? in
                if !lane.isRouted, session.queue.waitingCount == 0 { isAnyEmpty = true }
                guard let own = session.flow?.inFlightCount else { return nil }
                session.flow?.inFlightMax = max(0, limit - (inFlight - own))
                let hasMore = session.flow.map { $0.next < session.queue.end || !$0.leading.isEmpty } ?? false
                return (own, hasMore)
            }
            guard let (own, hasMore) = found ?? nil, hasMore else { continue }
            flow(lane.session, at: now, into: &effects)
            inFlight += (read(lane.session) { $0.flow?.inFlightCount ?? 0 } ?? 0) - own
        }
        if isAnyEmpty { endEmptyLanes(of: index, into: &effects) }
    }

    private func inFlightCount(of index: UplinkIndex) -> Int {
        uplinks[index.number].lanes.reduce(0) { sum, lane in
            sum + (read(lane.session) { $0.flow?.inFlightCount ?? 0 } ?? 0)
        }
    }

    /// Whether what joins the queue of an uplink now is not kept from leaving by its other queues or its drain; of any
    /// other receiver, always.
    mutating func mayLeaveAtOnce(_ session: SessionID, at now: Instant) -> Bool {
        guard let (uplink, isPaced) = read(session, { ($0.sharedUplink, $0.flow?.isPaced ?? false) }),
            let index = uplink
        else { return true }
        guard inFlightCount(of: index) < uplinks[index.number].inFlightMax else { return false }
        return !isPaced || uplinks[index.number].bucket?.wait(for: 0, at: now) ?? 0 == 0
    }

    /// The queue whose delivery an acknowledgement of the cloud is about.
    func laneSession(of id: PacketIdentifier, on index: UplinkIndex) -> SessionID {
        let upstream = uplinks[index.number]
        guard upstream.lanes.count > 1 else { return upstream.session }
        let number = PacketIdentifierRule.lane(of: id)
        return upstream.lanes.first { $0.number == number }?.session ?? upstream.session
    }
}
