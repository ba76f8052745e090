package kubelet

import (
	"errors"
	"net/netip"
	"os/exec"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podStatus is what a worker has to report of its pod. Only the worker's goroutine uses it.
type podStatus struct {
	message string // why the pod hasn't started
	box     *sandbox
	started metav1.Time
	ready   map[string]bool // by container, sidecars too
	exit    *corev1.ContainerStateTerminated

	written corev1.PodStatus // what the API server knows
}

// running says that the pod has started.
func (s *podStatus) running(box *sandbox) {
	s.box = box
	s.started = metav1.Now()
}

// ended says that the pod's program has ended by itself.
func (s *podStatus) ended(err error) {
	s.ready = nil
	s.exit = &corev1.ContainerStateTerminated{
		Reason:     "Completed",
		StartedAt:  s.started,
		FinishedAt: metav1.Now(),
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		s.exit.Reason, s.exit.ExitCode = "Error", int32(max(1, exit.ExitCode()))
	}
}

// next returns the status as it is now, and whether the API server knows another.
func (s *podStatus) next(
	pod *corev1.Pod, node []netip.Addr,
) (status corev1.PodStatus, changed bool) {
	status = corev1.PodStatus{Phase: s.phase(), StartTime: s.written.StartTime}
	if status.StartTime == nil {
		status.StartTime = new(metav1.Now())
	}
	for _, addr := range node {
		status.HostIPs = append(status.HostIPs, corev1.HostIP{IP: addr.String()})
	}
	status.HostIP = status.HostIPs[0].IP
	if s.box != nil {
		for _, addr := range s.box.pod.Addresses {
			status.PodIPs = append(status.PodIPs, corev1.PodIP{IP: addr.String()})
		}
		status.PodIP = status.PodIPs[0].IP
	}
	ready := s.box != nil && s.exit == nil
	for _, container := range runningContainers(pod) {
		ready = ready && s.ready[container.Name]
	}
	for _, container := range pod.Spec.InitContainers {
		status.InitContainerStatuses = append(status.InitContainerStatuses,
			s.container(container, !isSidecar(container)))
	}
	for _, container := range pod.Spec.Containers {
		status.ContainerStatuses = append(status.ContainerStatuses, s.container(container, false))
	}
	status.Conditions = s.conditions(map[corev1.PodConditionType]bool{
		corev1.PodReadyToStartContainers: s.box != nil && s.exit == nil,
		corev1.PodInitialized:            s.box != nil,
		corev1.ContainersReady:           ready,
		corev1.PodReady:                  ready,
		corev1.PodScheduled:              true,
	})
	return status, !equality.Semantic.DeepEqual(status, s.written)
}

func (s *podStatus) phase() corev1.PodPhase {
	switch {
	case s.box == nil:
		return corev1.PodPending
	case s.exit == nil:
		return corev1.PodRunning
	case s.exit.ExitCode == 0:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

// container is the status of a container. An init container that isn't a sidecar is done as soon as
// the pod has started.
func (s *podStatus) container(container corev1.Container, initOnly bool) corev1.ContainerStatus {
	status := corev1.ContainerStatus{
		Name:    container.Name,
		Image:   container.Image,
		Started: new(false),
	}
	if s.box == nil {
		status.State.Waiting = &corev1.ContainerStateWaiting{
			Reason:  "ContainerCreating",
			Message: s.message,
		}
		return status
	}
	status.ContainerID = "lab://" + s.box.containerID
	status.ImageID = container.Image
	switch {
	case s.exit != nil:
		status.State.Terminated = s.exit.DeepCopy()
		status.State.Terminated.ContainerID = status.ContainerID
	case initOnly:
		status.Ready = true
		status.State.Terminated = &corev1.ContainerStateTerminated{
			Reason:      "Completed",
			ContainerID: status.ContainerID,
			StartedAt:   s.started,
			FinishedAt:  s.started,
		}
	default:
		status.Started = new(true)
		status.Ready = s.ready[container.Name]
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: s.started}
	}
	return status
}

// conditions gives each condition the time of its last change.
func (s *podStatus) conditions(values map[corev1.PodConditionType]bool) []corev1.PodCondition {
	var conditions []corev1.PodCondition
	for _, kind := range []corev1.PodConditionType{
		corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady,
		corev1.ContainersReady, corev1.PodScheduled,
	} {
		condition := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse}
		if values[kind] {
			condition.Status = corev1.ConditionTrue
		}
		// The API keeps seconds.
		condition.LastTransitionTime = metav1.NewTime(time.Now().Truncate(time.Second))
		for _, before := range s.written.Conditions {
			if before.Type == kind && before.Status == condition.Status {
				condition.LastTransitionTime = before.LastTransitionTime
			}
		}
		conditions = append(conditions, condition)
	}
	return conditions
}
