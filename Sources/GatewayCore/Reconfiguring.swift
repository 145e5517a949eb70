import MQTT

// A new configuration takes effect while everything goes on. Uplinks are the same by their names; no message that was
// taken is let go because of it.
extension Gateway {
    /// The place of a configured uplink: the one it has been given when it was configured first, for as long as the
    /// process lives.
    package func uplinkIndex(of name: String) -> UplinkIndex? {
        uplinks.indices.first { plan.uplinks[$0].name == name && !uplinks[$0].isRemoved }.map(
            UplinkIndex.init)
    }

    /// Whether a cloud session is known to be ours; if not, the first connection is to begin one.
    package func isUplinkEstablished(_ index: UplinkIndex) -> Bool {
        uplinks[index.number].establishedAt != nil
    }

    /// Takes limits, routes, drains and provenance from another plan, but for limits that clients are told in CONNACK:
    /// messages in flight, Topic Aliases and the size of packets. An uplink that it does not have is closed, and
    /// what waits for it stays; one that is new, or was removed before, is opened; every other keeps its Session and
    /// its connection, on which it subscribes anew.
    ///
    /// What waits in a queue stays there, and leaves as its old route said: lanes that no route leads to any more
    /// end when they are empty.
    mutating func reconfigure(_ wanted: GatewayPlan, at now: Instant, into effects: inout [Effect]) {
        guard !isStopping else { return }
        let old = plan
        let carried = uplinks.indices.filter { !uplinks[$0].isRemoved }.map { old.uplinks[$0] }
        let oldLabels = old.uplinks.map { laneLabelsOfProfiles(for: $0.name) }
        plan = wanted
        // First of all, for a place is one in both lists, whatever else follows from the change.
        plan.uplinks = old.uplinks.map { known in
            wanted.uplinks.first { $0.name == known.name } ?? known
        }
        plan.uplinks += wanted.uplinks.filter { new in !old.uplinks.contains { $0.name == new.name } }
        // What clients were told when they connected stays, until a start tells everybody anew; so do Packet Identifiers.
        plan.limits.inFlightMax = old.limits.inFlightMax
        plan.limits.topicAliasMax = old.limits.topicAliasMax
        plan.limits.packetBytesMax = old.limits.packetBytesMax
        plan.packetBytesMaxByListener = old.packetBytesMaxByListener
        plan.limits.identifierSpan = old.limits.identifierSpan
        if old.profiles != plan.profiles || old.gateway != plan.gateway {
            sendUpHeldBack(at: now, into: &effects)
            reports = Reports()
            retreat(at: now, into: &effects)
        }
        // What went up before, others did not get, or not by these routes.
        if carried.count != wanted.uplinks.count || !wanted.uplinks.allSatisfy(carried.contains) {
            reports = Reports()
        }
        state.limits = plan.limits
        for number in plan.uplinks.indices {
            let index = UplinkIndex(number)
            let isWanted = wanted.uplinks.contains { $0.name == plan.uplinks[number].name }
            if number >= uplinks.count {
                openUplink(index, at: now, into: &effects)
            } else if !isWanted {
                if !uplinks[number].isRemoved { removeUplink(index, at: now, into: &effects) }
            } else {
                let hasNewLanes = laneLabelsOfProfiles(for: plan.uplinks[number].name) != oldLabels[number]
                adjustUplink(
                    index, from: old.uplinks[number], hasNewLanes: hasNewLanes, at: now, into: &effects)
            }
        }
        if old.systemTopicsMilliseconds == nil, let interval = plan.systemTopicsMilliseconds {
            schedule(.systemTopics, at: now.advanced(byMilliseconds: interval))
        }
    }

    private mutating func removeUplink(_ index: UplinkIndex, at now: Instant, into effects: inout [Effect]) {
        let upstream = uplinks[index.number]
        uplinkDisconnected(index, at: now, into: &effects)
        uplinks[index.number].isRemoved = true
        for filter in upstream.routed { state.routing.remove(upstream.session, filter: filter) }
        uplinks[index.number].routed = []
        effects.append(.uplink(index, .close))
        effects.append(
            .report(
                .uplinkRemoved(name: plan.uplinks[index.number].name, waiting: waitingCount(of: index))))
    }

    private mutating func adjustUplink(
        _ index: UplinkIndex, from old: UplinkRoutes, hasNewLanes: Bool, at now: Instant,
        into effects: inout [Effect]
    ) {
        let n = index.number
        if uplinks[n].isRemoved {
            uplinks[n].isRemoved = false
            layLanes(of: index, at: now, into: &effects)
            effects.append(.uplink(index, .open(cleanStart: uplinks[n].establishedAt == nil)))
            return
        }
        guard hasNewLanes || plan.uplinks[n] != old else { return }
        layLanes(of: index, at: now, into: &effects)
        guard uplinks[n].isConnected, uplinks[n].subscribesAfter == nil else { return }
        if plan.uplinks[n].in != old.in { effects.append(.uplink(index, .subscribe)) }
        pump(uplinks[n].session, at: now, into: &effects)
    }
}
