/* <dtx-charts>: soon. */
